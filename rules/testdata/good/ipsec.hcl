policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "branch" {
  action         = "protect"
  with           = "branch"
  direction      = "forward"
  local_address  = "10.1.0.0/16"
  remote_address = "10.2.0.0/16"
}

rule "ah" {
  action         = "protect"
  with           = "ah"
  direction      = "both"
  remote_address = "2001:db8::7"
}

rule "users" {
  action         = "protect"
  with           = "users"
  direction      = "both"
  remote_address = "10.99.0.0/24"
}

rule "named" {
  action         = "protect"
  with           = "named"
  direction      = "out"
  protocol       = "tcp"
  remote_port    = 443
  remote_address = "203.0.113.0/24"
}

ipsec "branch" {
  mode            = "tunnel"
  protocol        = "esp"
  local_endpoint  = "198.51.100.1"
  remote_endpoint = "203.0.113.7"
  manual {
    spi_in     = "0x1001"
    spi_out    = "0x1002"
    encryption = "aes-256-cbc"
    integrity  = "hmac-sha2-256-128"
    key_file   = "keys/esp.keys"
  }
}

ipsec "ah" {
  mode            = "transport"
  protocol        = "ah"
  remote_endpoint = "2001:db8::7"
  manual {
    spi_in    = 256
    spi_out   = "0x101"
    integrity = "hmac-sha2-256-128"
    key_file  = "keys/ah.keys"
  }
}

ipsec "users" {
  mode             = "tunnel"
  tfc_padding      = 1400
  dummy_packets    = "20/sec"
  outer {
    df              = "clear"
    dscp            = "ef"
    ecn             = false
    ttl             = 32
    copy_flow_label = true
  }
  ike              = "remote-users"
  encapsulation    = "udp"
  encryption       = ["aes-256-gcm-16", "chacha20-poly1305"]
  key_exchange     = ["x25519+ml-kem-768", "ml-kem-768", "x25519"]
  replay_window    = 4096
  esn              = false
  lifetime         = "90m"
  lifetime_bytes   = "64GiB"
  lifetime_packets = 1000000
}

ipsec "named" {
  mode = "transport"
  ike  = "named"
}

ike "remote-users" { # a gateway: callers get an address and a resolver
  pool        = ["10.99.0.0/24", "fd99::/64"]
  dns         = ["10.1.0.53"]
  dns_domains = ["Corp.example.", "lab.example"]
  local_id    = "vpn.example.org"
  remote_id   = "*@example.org"
  public_keys = "keys/peers/"
  private_key = "keys/private.key"
}

ike "named" {
  local_endpoint      = "198.51.100.1"
  remote_endpoint     = ["Peer.example.org", "203.0.113.1-203.0.113.9"]
  remote_id           = "mobile@example.org"
  ppk_id              = "one"
  ppk_required        = true
  mobike              = false
  full_transcript_auth = "require"
  psk_file            = "keys/private.key"
  ppk_file            = "keys/private.key"
  encryption          = ["aes-256-gcm-16", "aes-256-cbc"]
  integrity           = "hmac-sha2-512-256"
  prf                 = "prf-hmac-sha2-512"
  key_exchange        = "p-384"
  lifetime            = "1d"
  dead_peer_detection = "90s"
  retransmit_timeout  = "500ms"
  retransmit_base     = 1.8
  retransmit_tries    = 3
  initiate            = "start"
}
