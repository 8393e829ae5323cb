# A peer of the hub.

policy {
  inbound  = "discard"
  outbound = "discard"
}

rule "hub" {
  action         = "protect"
  with           = "hub"
  direction      = "both"
  remote_address = "fd00::2"
}

ipsec "hub" {
  mode            = "tunnel"
  protocol        = "ah"
  local_endpoint  = "10.0.0.14"
  remote_endpoint = "10.0.0.2"
  manual {
    spi_in    = "0x4002"
    spi_out   = "0x4001"
    integrity = "hmac-sha2-256-128"
    key_file  = "hub.keys"
  }
}

test "the hub under IPsec" {
  expect "protect" { packet = "out tcp [fd00::14]:40000 -> [fd00::2]:80" }
}
