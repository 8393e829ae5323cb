# A file server. Its clients reach SMB under IPsec in transport mode; nothing
# else gets in, and SMB in the clear gets nowhere.
#
# Keys are set by hand here, one pair for each client: alice.keys and bob.keys,
# mode 0600, beside this file. Where more than a few hosts are to talk, let IKE
# make the keys (see the profile "file-server").

policy {
  inbound  = "discard"
  outbound = "discard"
}

rule "smb-alice" {
  action         = "protect"
  with           = "alice"
  direction      = "in"
  protocol       = "tcp"
  remote_address = "10.0.0.7"
  local_port     = 445
}

rule "smb-bob" {
  action         = "protect"
  with           = "bob"
  direction      = "in"
  protocol       = "tcp"
  remote_address = "10.0.0.8"
  local_port     = 445
}

ipsec "alice" {
  mode            = "transport"
  remote_endpoint = "10.0.0.7"
  manual {
    spi_in     = "0x1001"
    spi_out    = "0x1002"
    encryption = "aes-256-cbc"
    integrity  = "hmac-sha2-256-128"
    key_file   = "alice.keys"
  }
}

ipsec "bob" {
  mode            = "transport"
  remote_endpoint = "10.0.0.8"
  manual {
    spi_in     = "0x2001"
    spi_out    = "0x2002"
    encryption = "aes-128-cbc"
    integrity  = "hmac-sha2-512-256"
    key_file   = "bob.keys"
  }
}

test "SMB for those who have keys, and under them" {
  expect "protect" {
    packet = "in tcp 10.0.0.7:50000 -> 10.0.0.2:445 protected alice"
    rule   = "smb-alice"
  }
  expect "protect" {
    packet = "in tcp 10.0.0.8:50000 -> 10.0.0.2:445 protected bob"
    rule   = "smb-bob"
  }
  expect "discard" {
    packets = [
      "in tcp 10.0.0.8:50000 -> 10.0.0.2:445 protected alice", # bob's address under alice's keys
      "in tcp 10.0.0.9:50000 -> 10.0.0.2:445",
      "in tcp 10.0.0.7:50000 -> 10.0.0.2:22",
      "out tcp 10.0.0.2:50000 -> 203.0.113.9:443",
    ]
  }
}
