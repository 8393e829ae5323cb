# A gateway for one remote user. Through the tunnel she reaches the servers
# behind it, and nothing else does; behind the gateway her packets are clear.

policy {
  inbound  = "discard"
  outbound = "bypass"
  forward  = "discard"
}

rule "alice-to-servers" {
  action         = "protect"
  with           = "alice"
  direction      = "forward"
  opened_by      = "remote"
  local_address  = "10.1.0.0/16" # the servers
  remote_address = "10.99.0.7"   # her address inside the tunnel
}

ipsec "alice" {
  mode            = "tunnel"
  encapsulation   = "udp" # passes whatever NAT she sits behind
  local_endpoint  = "198.51.100.1"
  remote_endpoint = "203.0.113.7"
  manual {
    spi_in     = "0x1001"
    spi_out    = "0x1002"
    encryption = "aes-256-cbc"
    integrity  = "hmac-sha2-256-128"
    key_file   = "alice.keys"
  }
}

test "alice reaches the servers, through her tunnel only" {
  expect "protect" { packet = "forward tcp 10.99.0.7:40000 -> 10.1.0.9:80 protected alice" }
  expect "discard" {
    packets = [
      "forward tcp 10.99.0.8:40000 -> 10.1.0.9:80 protected alice",
      "forward tcp 10.1.0.9:40000 -> 10.99.0.7:22",
      "forward tcp 203.0.113.9:40000 -> 10.1.0.9:80",
      "in tcp 203.0.113.7:40000 -> 198.51.100.1:22",
    ]
  }
}
