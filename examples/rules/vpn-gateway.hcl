# A gateway for people on the road. Each caller proves itself by a key of its
# own, gets an address from the pool and the resolver of the house, and reaches
# the servers inside through a tunnel. Callers do not reach one another.
#
# Here belong /etc/ipfw/vpn.example.org.key, and the public key of each caller as
# /etc/ipfw/users/NAME.pub, where NAME is the identity that it proves. Gateway and
# callers (profile:vpn-client) each make a pair of their own; this prints the public
# half, for the other side:
#
#   ipfw pki key vpn.example.org

policy {
  inbound  = "discard"
  outbound = "bypass"
  forward  = "discard"
}

# Change these to your own: the tests below follow.
locals {
  callers   = ["10.99.0.0/24", "fd99::/64"]
  servers   = ["10.1.0.0/16", "fd00:1::/48"]
  resolvers = ["10.1.0.53"]
}

rule "callers-apart" {
  action         = "discard"
  direction      = "forward"
  local_address  = local.callers
  remote_address = local.callers
  reject         = true
}

# local_address is the network behind this host, remote_address the far side.
rule "callers-to-servers" {
  action         = "protect"
  with           = "callers"
  direction      = "forward"
  opened_by      = "remote"
  local_address  = local.servers
  remote_address = local.callers
}

rule "callers-ping-the-gateway" {
  action         = "protect"
  with           = "callers"
  direction      = "in"
  protocol       = ["icmp", "icmpv6"]
  icmp_type      = "echo-request"
  remote_address = local.callers
}

# What this host would open to a caller by itself has no tunnel to go through.
rule "callers-never-in-the-clear" {
  action         = "discard"
  direction      = "out"
  remote_address = local.callers
  reject         = true
}

rule "ssh" {
  action         = "bypass"
  direction      = "in"
  protocol       = "tcp"
  remote_address = local.servers
  local_port     = 22
}

ipsec "callers" {
  mode     = "tunnel"
  protocol = "esp"
  ike      = "remote-users"
}

ike "remote-users" {
  pool        = local.callers
  dns         = local.resolvers
  local_id    = "vpn.example.org"
  public_keys = "users/"
  private_key = "vpn.example.org.key"
}

# For the tests, out of the locals above: the first address of each network there, and
# beside it one of this host that is of the same family; callers beside others, too.
locals {
  who = {
    callers   = local.callers
    servers   = [for a in flatten([local.servers]) : cidrhost(a, 0) if !cidrcontains(local.callers, cidrhost(a, 0))]
    strangers = [for a in ["203.0.113.9", "198.51.100.9", "192.0.2.9", "2001:db8:9::9"] : a if !cidrcontains([local.callers, local.servers], a)]
  }
  addresses = { for name, list in local.who : name => [for i, a in flatten([list]) : cidrhost(a, 0) if i < 8] }
  ends = { for name, list in local.addresses : name => [
    for a in list : { peer = a, host = cidrcontains("::/0", a) ? "fd00:1::1" : "10.1.0.1", icmp = cidrcontains("::/0", a) ? "icmpv6" : "icmp" }
  ] }
  neighbors = [for p in flatten([local.callers]) : { one = cidrhost(p, 0), other = cidrhost(p, -1) } if cidrhost(p, 0) != cidrhost(p, -1)]
  pairs = { for name, list in local.addresses : name => flatten([
    for c in local.addresses.callers : [for a in list : { caller = c, peer = a } if cidrcontains("::/0", c) == cidrcontains("::/0", a)]
  ]) }
}

test "callers reach the servers through the tunnel" {
  expect "protect" {
    packets = [for e in local.pairs.servers : [
      "forward tcp [${e.caller}]:40000 -> [${e.peer}]:443",
      "forward tcp [${e.caller}]:40000 -> [${e.peer}]:443 protected callers",
      "forward udp [${e.caller}]:40000 -> [${e.peer}]:53",
    ]]
    rule = "callers-to-servers"
  }
  expect "protect" {
    packets = [for e in local.ends.callers : "in ${e.icmp} echo-request ${e.peer} -> ${e.host}"]
    rule    = "callers-ping-the-gateway"
  }
}

test "and nothing else" {
  expect "discard" {
    packets = [for e in local.neighbors : ["forward tcp [${e.one}]:40000 -> [${e.other}]:445", "forward udp [${e.other}]:40000 -> [${e.one}]:5353"]]
    rule    = "callers-apart"
  }
  expect "discard" {
    packets = [for e in local.ends.callers : ["out tcp [${e.host}]:40000 -> [${e.peer}]:22", "out udp [${e.host}]:40000 -> [${e.peer}]:53"]]
    rule    = "callers-never-in-the-clear"
  }
  expect "discard" { packets = [for e in local.pairs.servers : "forward tcp [${e.peer}]:40000 -> [${e.caller}]:22"] }
  expect "discard" { packets = [for e in local.pairs.strangers : "forward tcp [${e.caller}]:40000 -> [${e.peer}]:443"] }
}

test "anybody may knock, but only the servers' network gets a shell" {
  expect "bypass" {
    packets = [
      "in udp 203.0.113.9:500 -> 198.51.100.1:500",
      "in udp 203.0.113.9:61000 -> 198.51.100.1:4500",
      "in esp 203.0.113.9 -> 198.51.100.1 spi 0x1001",
    ]
  }
  expect "bypass" {
    packets = [for e in local.ends.servers : "in tcp [${e.peer}]:40000 -> [${e.host}]:22"]
    rule    = "ssh"
  }
  expect "discard" { packets = [for e in local.ends.strangers : "in tcp [${e.peer}]:40000 -> [${e.host}]:22"] }
  expect "discard" {
    packets = [for e in local.ends.callers : "in tcp [${e.peer}]:40000 -> [${e.host}]:22" if !cidrcontains(local.servers, e.peer)]
  }
}
