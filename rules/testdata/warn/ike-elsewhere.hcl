policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "smb" {
  action         = "protect"
  with           = "files"
  direction      = "out"
  protocol       = "tcp"
  remote_address = "192.0.2.0/24"
  remote_port    = 445
}

rule "smb from the LAN" {
  action         = "protect"
  with           = "files"
  direction      = "in"
  protocol       = "tcp"
  remote_address = ["192.0.2.1", "192.0.2.3"]
  local_port     = 445
}

rule "print" {
  action      = "protect"
  with        = "lan"
  direction   = "out"
  protocol    = "tcp"
  remote_port = 631
}

# Only these two are what peers can be: one shuts out all others, one is a part
# of the range.
rule "web for the LAN alone" {
  action     = "protect"
  with       = "lan"
  direction  = "in"
  protocol   = "tcp"
  local_port = 80
}

rule "one of the LAN" {
  action         = "protect"
  with           = "lan"
  direction      = "both"
  protocol       = "udp"
  remote_address = ["10.0.0.9", "10.0.0.128/25", "fd00::5"]
}

rule "from another address" {
  action         = "protect"
  with           = "from"
  direction      = "out"
  protocol       = "udp"
  local_address  = "198.51.100.0/28"
  remote_address = "203.0.113.9"
}

rule "by hand" {
  action         = "protect"
  with           = "hand"
  direction      = "out"
  protocol       = "sctp"
  remote_address = "203.0.113.0/24"
}

ipsec "files" {
  mode = "transport"
  ike  = "files"
}

ipsec "lan" {
  mode = "transport"
  ike  = "lan"
}

ipsec "from" {
  mode = "transport"
  ike  = "from"
}

ipsec "hand" {
  mode            = "transport"
  remote_endpoint = "203.0.113.9"
  manual {
    spi_in     = "0x1001"
    spi_out    = "0x1002"
    encryption = "aes-256-cbc"
    integrity  = "hmac-sha2-256-128"
    key_file   = "keys/manual.keys"
  }
}

ike "files" {
  remote_endpoint = "192.0.2.1"
  psk_file        = "keys/private.key"
}

ike "lan" {
  remote_endpoint = ["10.0.0.0/24", "fd00::/64"]
  remote_id       = "printer.example.org"
  psk_file        = "keys/private.key"
}

ike "from" {
  local_endpoint  = "198.51.100.1"
  remote_endpoint = "203.0.113.9"
  psk_file        = "keys/private.key"
}
