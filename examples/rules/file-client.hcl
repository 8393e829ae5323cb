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

# Change these to your own: the tests below follow.
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

# For the tests, out of the locals above: the first address of each network there, and
# beside it one of this host that is of the same family.
locals {
  who = {
    server    = local.server
    strangers = [for a in ["203.0.113.9", "198.51.100.9", "192.0.2.9", "2001:db8:9::9"] : a if !cidrcontains(local.server, a)]
  }
  addresses = { for name, list in local.who : name => [for i, a in flatten([list]) : cidrhost(a, 0) if i < 8] }
  ends = { for name, list in local.addresses : name => [
    for a in list : { peer = a, host = cidrcontains("::/0", a) ? "fd00:10::7" : "10.0.0.7" }
  ] }
}

test "files go protected" {
  expect "protect" {
    packets = [for e in local.ends.server : ["out tcp [${e.host}]:50000 -> [${e.peer}]:445", "out tcp [${e.host}]:900 -> [${e.peer}]:2049"]]
    rule    = "files"
  }
}

test "the key exchange and what it seals come through, with the server only" {
  expect "bypass" {
    packets = [for e in local.ends.server : [
      "out udp [${e.host}]:500 -> [${e.peer}]:500",
      "in udp [${e.peer}]:4500 -> [${e.host}]:4500",
      "in esp ${e.peer} -> ${e.host} spi 0x1001",
    ]]
  }
  expect "discard" {
    packets = [for e in local.ends.strangers : ["in udp [${e.peer}]:500 -> [${e.host}]:500", "in esp ${e.peer} -> ${e.host} spi 0x1001"]]
  }
}

test "nobody opens anything to it" {
  expect "discard" { packets = [for e in local.ends.server : "in tcp [${e.peer}]:40000 -> [${e.host}]:445"] }
  expect "discard" { packet = "in tcp 203.0.113.9:40000 -> 10.0.0.7:22" }
  expect "bypass" { packet = "out tcp 10.0.0.7:40000 -> 203.0.113.9:443" }
}
