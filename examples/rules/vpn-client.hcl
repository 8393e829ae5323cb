# A caller of the gateway of profile:vpn-gateway, on the road: it gets an address
# there, and reaches the servers behind it through a tunnel. Else it opens what it
# likes, and nobody opens anything to it.
#
# Here belong /etc/ipfw/ann@example.org.key, and the gateway's public key as
# /etc/ipfw/peers/vpn.example.org.pub. Each makes a pair of its own; this prints the
# public half, for the gateway's folder users/:
#
#   ipfw pki key ann@example.org

policy {
  inbound  = "discard"
  outbound = "bypass"
}

# Change these to your own: the tests below follow.
locals {
  gateway = "198.51.100.1"
  servers = ["10.1.0.0/16", "fd00:1::/48"]
}

rule "servers" {
  action         = "protect"
  with           = "gateway"
  direction      = "out"
  remote_address = local.servers
}

ipsec "gateway" {
  mode     = "tunnel"
  protocol = "esp"
  ike      = "gateway"
}

ike "gateway" {
  remote_endpoint = local.gateway
  local_id        = "ann@example.org"
  remote_id       = "vpn.example.org"
  public_keys     = "peers/"
  private_key     = "ann@example.org.key"
  request_address = true
  initiate        = "start" # so that programs find the address when they begin
}

# For the tests, out of the locals above: the first address of each network there, and
# beside it one of this host that is of the same family. Where the gateway is a name,
# any address may be its.
locals {
  who = {
    gateway   = [for g in flatten([local.gateway]) : try(cidrhost(g, 0), "203.0.113.1")]
    servers   = local.servers
    strangers = [for a in local.some : a if try(!cidrcontains(local.gateway, a), false)]
    elsewhere = [for a in local.some : a if !cidrcontains(local.servers, a)]
  }
  some      = ["203.0.113.9", "198.51.100.9", "192.0.2.9", "2001:db8:9::9"]
  addresses = { for name, list in local.who : name => [for i, a in flatten([list]) : cidrhost(a, 0) if i < 8] }
  ends = { for name, list in local.addresses : name => [
    for a in list : { peer = a, host = cidrcontains("::/0", a) ? "2001:db8:1::7" : "192.168.1.7" }
  ] }
}

test "the servers are reached through the tunnel, and never in the clear" {
  expect "protect" {
    packets = [for e in local.ends.servers : ["out tcp [${e.host}]:40000 -> [${e.peer}]:443", "out udp [${e.host}]:40000 -> [${e.peer}]:53"]]
    rule    = "servers"
  }
}

test "the gateway is heard, and nobody else" {
  expect "bypass" {
    packets = [for e in local.ends.gateway : [
      "out udp [${e.host}]:500 -> [${e.peer}]:500",
      "in udp [${e.peer}]:4500 -> [${e.host}]:4500",
      "in esp ${e.peer} -> ${e.host} spi 0x1001",
    ]]
  }
  expect "discard" { packets = [for e in local.ends.strangers : "in udp [${e.peer}]:4500 -> [${e.host}]:4500"] }
  expect "discard" { packets = [for e in local.ends.servers : "in tcp [${e.peer}]:40000 -> [${e.host}]:22"] }
}

test "everything else goes on as before" {
  expect "bypass" { packets = [for e in local.ends.elsewhere : "out tcp [${e.host}]:40000 -> [${e.peer}]:443"] }
  expect "discard" { packet = "in tcp 203.0.113.9:40000 -> 192.168.1.7:22" }
}
