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
  mode            = "transport"
  protocol        = "esp"
  local_endpoint  = "10.0.0.11"
  remote_endpoint = "10.0.0.2"
  manual {
    spi_in     = "0x1002"
    spi_out    = "0x1001"
    encryption = "aes-256-cbc"
    integrity  = "hmac-sha2-256-128"
    key_file   = "hub.keys"
  }
}

test "the hub under IPsec" {
  expect "protect" { packet = "out tcp 10.0.0.11:40000 -> 10.0.0.2:80" }
}
