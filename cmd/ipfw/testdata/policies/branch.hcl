# Keys set by hand: a tunnel to a branch, two hosts in transport mode.
policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "branch" {
  action         = "protect"
  with           = "tunnel"
  direction      = "forward"
  local_address  = ["10.1.0.0/16", "2001:db8:1::/48"]
  remote_address = ["10.2.0.0/16", "2001:db8:2::/48"]
}

rule "files" {
  action         = "protect"
  with           = "nat"
  direction      = "both"
  protocol       = "tcp"
  remote_address = "192.0.2.7-192.0.2.8"
  remote_port    = 445
}

rule "ping" {
  action         = "protect"
  with           = "signed"
  direction      = "both"
  protocol       = "icmp"
  remote_address = "192.0.2.9"
}

ipsec "tunnel" {
  mode            = "tunnel"
  local_endpoint  = "198.51.100.1"
  remote_endpoint = "203.0.113.7"
  manual {
    spi_in     = "0x1001"
    spi_out    = "0x1002"
    encryption = "aes-256-cbc"
    integrity  = "hmac-sha2-256-128"
    key_file   = "branch.keys"
  }
}

ipsec "nat" {
  mode            = "transport"
  encapsulation   = "udp"
  remote_endpoint = "192.0.2.7"
  manual {
    spi_in     = "0x2001"
    spi_out    = "0x2002"
    encryption = "aes-256-cbc"
    integrity  = "hmac-sha2-256-128"
    key_file   = "branch.keys"
  }
}

ipsec "signed" {
  mode            = "transport"
  protocol        = "ah"
  remote_endpoint = "192.0.2.9"
  manual {
    spi_in    = "0x3001"
    spi_out   = "0x3002"
    integrity = "hmac-sha2-256-128"
    key_file  = "ah.keys"
  }
}
