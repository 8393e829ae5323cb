# A client of the file server: SMB to it leaves sealed or not at all.

policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "smb" {
  action         = "protect"
  with           = "server"
  direction      = "out"
  protocol       = "tcp"
  remote_address = "10.0.0.2"
  remote_port    = 445
}

ipsec "server" {
  mode            = "transport"
  remote_endpoint = "10.0.0.2"
  manual {
    spi_in     = "0x1002"
    spi_out    = "0x1001"
    encryption = "aes-256-cbc"
    integrity  = "hmac-sha2-256-128"
    key_file   = "server.keys"
  }
}

test "SMB under IPsec, the rest as ever" {
  expect "protect" { packet = "out tcp 10.0.0.7:50000 -> 10.0.0.2:445" }
  expect "bypass" { packet = "out tcp 10.0.0.7:50000 -> 203.0.113.9:443" }
  expect "discard" { packet = "in tcp 10.0.0.2:50000 -> 10.0.0.7:22" }
}
