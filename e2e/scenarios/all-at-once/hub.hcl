# One host that speaks all four kinds of IPsec at the same time: ESP and AH, in
# transport and in tunnel mode, over IPv4 and IPv6.

policy {
  inbound  = "discard"
  outbound = "discard"
}

rule "a" {
  action         = "protect"
  with           = "esp-transport"
  direction      = "both"
  remote_address = "10.0.0.11"
}

rule "b" {
  action         = "protect"
  with           = "esp-tunnel"
  direction      = "both"
  remote_address = "10.0.0.12" # inside a tunnel over IPv6
}

rule "c" {
  action         = "protect"
  with           = "ah-transport"
  direction      = "both"
  remote_address = "fd00::13"
}

rule "d" {
  action         = "protect"
  with           = "ah-tunnel"
  direction      = "both"
  remote_address = "fd00::14" # inside a tunnel over IPv4
}

ipsec "esp-transport" {
  mode            = "transport"
  protocol        = "esp"
  remote_endpoint = "10.0.0.11"
  manual {
    spi_in     = "0x1001"
    spi_out    = "0x1002"
    encryption = "aes-256-cbc"
    integrity  = "hmac-sha2-256-128"
    key_file   = "a.keys"
  }
}

ipsec "esp-tunnel" {
  mode            = "tunnel"
  protocol        = "esp"
  local_endpoint  = "fd00::2"
  remote_endpoint = "fd00::12"
  manual {
    spi_in     = "0x2001"
    spi_out    = "0x2002"
    encryption = "aes-128-cbc"
    integrity  = "hmac-sha2-512-256"
    key_file   = "b.keys"
  }
}

ipsec "ah-transport" {
  mode            = "transport"
  protocol        = "ah"
  remote_endpoint = "fd00::13"
  manual {
    spi_in    = "0x3001"
    spi_out   = "0x3002"
    integrity = "hmac-sha2-384-192"
    key_file  = "c.keys"
  }
}

ipsec "ah-tunnel" {
  mode            = "tunnel"
  protocol        = "ah"
  local_endpoint  = "10.0.0.2"
  remote_endpoint = "10.0.0.14"
  manual {
    spi_in    = "0x4001"
    spi_out   = "0x4002"
    integrity = "hmac-sha2-256-128"
    key_file  = "d.keys"
  }
}

test "each peer under its own" {
  expect "protect" {
    packet = "in tcp 10.0.0.11:40000 -> 10.0.0.2:80 protected esp-transport"
    rule   = "a"
  }
  expect "protect" {
    packet = "in tcp [fd00::14]:40000 -> [fd00::2]:80 protected ah-tunnel"
    rule   = "d"
  }
  expect "discard" {
    packets = [
      "in tcp 10.0.0.11:40000 -> 10.0.0.2:80 protected esp-tunnel",
      "in tcp [fd00::13]:40000 -> [fd00::2]:80 protected ah-tunnel",
    ]
  }
}
