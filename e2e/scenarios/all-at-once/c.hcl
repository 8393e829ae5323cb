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
  mode            = "transport"
  protocol        = "ah"
  local_endpoint  = "fd00::13"
  remote_endpoint = "fd00::2"
  manual {
    spi_in    = "0x3002"
    spi_out   = "0x3001"
    integrity = "hmac-sha2-384-192"
    key_file  = "hub.keys"
  }
}

test "the hub under IPsec" {
  expect "protect" { packet = "out tcp [fd00::13]:40000 -> [fd00::2]:80" }
}
