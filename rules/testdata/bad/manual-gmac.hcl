policy {
  inbound  = "discard"
  outbound = "bypass"
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
    integrity  = "aes-128-gmac"
    key_file   = "keys/esp.keys"
  }
}
