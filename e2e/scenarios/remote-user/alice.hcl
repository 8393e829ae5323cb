# A remote user. What she sends to the servers of the house goes through the
# tunnel, from the address she has there; the rest of the internet is as ever.

policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "house" {
  action         = "protect"
  with           = "gateway"
  direction      = "out"
  local_address  = "10.99.0.7"
  remote_address = "10.1.0.0/16"
}

# Without her address in the tunnel nothing goes there at all.
rule "never-in-the-clear" {
  action         = "discard"
  direction      = "out"
  remote_address = "10.1.0.0/16"
  reject         = true
}

ipsec "gateway" {
  mode            = "tunnel"
  encapsulation   = "udp"
  local_endpoint  = "203.0.113.7"
  remote_endpoint = "198.51.100.1"
  manual {
    spi_in     = "0x1002"
    spi_out    = "0x1001"
    encryption = "aes-256-cbc"
    integrity  = "hmac-sha2-256-128"
    key_file   = "gateway.keys"
  }
}

test "the house through the tunnel" {
  expect "protect" { packet = "out tcp 10.99.0.7:40000 -> 10.1.0.9:80" }
  expect "discard" { packet = "out tcp 203.0.113.7:40000 -> 10.1.0.9:80" }
  expect "bypass" { packet = "out tcp 203.0.113.7:40000 -> 192.0.2.80:443" }
}
