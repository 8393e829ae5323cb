# A client of the file server of profile:file-server: it reaches its shares sealed
# by IPsec, and never in the clear. Else it opens what it likes, and nobody opens
# anything to it.
#
# Here belong /etc/ipfw/client.example.org.key, and the server's public key as
# /etc/ipfw/peers/files.example.org.pub. Each makes a pair of its own; this prints
# the public half, for the server's folder peers/:
#
#   ipfw pki key client.example.org

policy {
  inbound  = "discard"
  outbound = "bypass"
}

# Change these to your own, and the addresses in the tests below with them.
locals {
  server = ["10.0.0.2", "fd00:10::2"]
}

rule "files" {
  action         = "protect"
  with           = "server" # the ipsec block below; in the clear it is discarded
  direction      = "out"
  protocol       = "tcp"
  remote_address = local.server
  remote_port    = [445, 2049] # SMB; NFS version 4
}

ipsec "server" {
  mode     = "transport" # from host to host
  protocol = "esp"
  ike      = "server"
}

ike "server" {
  remote_endpoint = local.server
  local_id        = "client.example.org"
  remote_id       = "files.example.org"
  public_keys     = "peers/"
  private_key     = "client.example.org.key"
}

test "files go protected" {
  expect "protect" {
    packets = ["out tcp 10.0.0.7:50000 -> 10.0.0.2:445", "out tcp [fd00:10::7]:900 -> [fd00:10::2]:2049"]
    rule    = "files"
  }
}

test "the key exchange and what it seals come through, with the server only" {
  expect "bypass" {
    packets = [
      "out udp 10.0.0.7:500 -> 10.0.0.2:500",
      "in udp 10.0.0.2:4500 -> 10.0.0.7:4500",
      "in esp 10.0.0.2 -> 10.0.0.7 spi 0x1001",
    ]
  }
  expect "discard" { packets = ["in udp 203.0.113.9:500 -> 10.0.0.7:500", "in esp 203.0.113.9 -> 10.0.0.7 spi 0x1001"] }
}

test "nobody opens anything to it" {
  expect "discard" { packets = ["in tcp 10.0.0.2:40000 -> 10.0.0.7:445", "in tcp 203.0.113.9:40000 -> 10.0.0.7:22"] }
  expect "bypass" { packet = "out tcp 10.0.0.7:40000 -> 203.0.113.9:443" }
}
