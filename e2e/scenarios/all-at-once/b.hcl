# A peer of the hub.

policy {
  inbound  = "discard"
  outbound = "discard"
}

rule "hub" {
  action         = "protect"
  with           = "hub"
  direction      = "both"
  remote_address = "10.0.0.2"
}

ipsec "hub" {
  mode            = "tunnel"
  protocol        = "esp"
  local_endpoint  = "fd00::12"
  remote_endpoint = "fd00::2"
  manual {
    spi_in     = "0x2002"
    spi_out    = "0x2001"
    encryption = "aes-128-cbc"
    integrity  = "hmac-sha2-512-256"
    key_file   = "hub.keys"
  }
}

test "the hub under IPsec" {
  expect "protect" { packet = "out tcp 10.0.0.12:40000 -> 10.0.0.2:80" }
}
