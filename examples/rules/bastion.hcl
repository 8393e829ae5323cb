# A bastion: the one host that can be reached by ssh from outside, and from
# which the hosts inside can be reached by ssh. It does nothing else.

policy {
  inbound  = "discard"
  outbound = "discard"
}

# Change these to your own: the tests below follow.
locals {
  inside    = ["10.0.0.0/8", "fd00::/8"]
  resolvers = ["10.1.0.53", "fd00:1::53"]
}

# Ten new sessions in a minute are plenty for one address. What is over the
# limit does not match, goes on to the rules below, and is discarded.
rule "ssh-in" {
  action     = "bypass"
  direction  = "in"
  protocol   = "tcp"
  local_port = 22
  log        = true
  limit {
    rate  = "10/minute"
    burst = 10
    per   = "remote_address"
  }
}

rule "ssh-on" {
  action         = "bypass"
  direction      = "out"
  protocol       = "tcp"
  remote_address = local.inside
  remote_port    = 22
  log            = true
}

rule "names" {
  action         = "bypass"
  direction      = "out"
  protocol       = ["udp", "tcp"]
  remote_address = local.resolvers
  remote_port    = 53
}

rule "time" {
  action         = "bypass"
  direction      = "out"
  protocol       = "udp"
  remote_address = local.inside
  remote_port    = 123
}

rule "ping" {
  action    = "bypass"
  direction = "in"
  protocol  = ["icmp", "icmpv6"]
  icmp_type = "echo-request"
  limit {
    rate = "5/second"
  }
}

# For the tests, out of the locals above: the first address of each network there, and
# beside it one of this host that is of the same family.
locals {
  who = {
    inside    = local.inside
    resolvers = local.resolvers
    strangers = [for a in ["203.0.113.9", "198.51.100.9", "192.0.2.9", "2001:db8:9::9"] : a if !cidrcontains(local.inside, a)]
  }
  addresses = { for name, list in local.who : name => [for i, a in flatten([list]) : cidrhost(a, 0) if i < 8] }
  ends = { for name, list in local.addresses : name => [
    for a in list : { peer = a, host = cidrcontains("::/0", a) ? "fd00:1::22" : "10.1.0.22" }
  ] }
}

test "ssh in, from anywhere" {
  expect "bypass" {
    packets = ["in tcp 203.0.113.9:40000 -> 198.51.100.22:22", "in tcp [2001:db8:9::1]:40000 -> [2001:db8::22]:22"]
    rule    = "ssh-in"
  }
  expect "bypass" { packet = "out tcp 198.51.100.22:22 -> 203.0.113.9:40000 established" }
}

test "ssh on, to the inside only" {
  expect "bypass" {
    packets = [for e in local.ends.inside : "out tcp [${e.host}]:40000 -> [${e.peer}]:22"]
    rule    = "ssh-on"
  }
  expect "discard" { packets = [for e in local.ends.strangers : "out tcp [${e.host}]:40000 -> [${e.peer}]:22"] }
  expect "discard" { packets = [for e in local.ends.inside : "out tcp [${e.host}]:40000 -> [${e.peer}]:5432"] }
}

test "and little else" {
  expect "bypass" {
    packets = [for e in local.ends.resolvers : "out udp [${e.host}]:40000 -> [${e.peer}]:53"]
    rule    = "names"
  }
  expect "bypass" {
    packets = [for e in local.ends.inside : "out udp [${e.host}]:40000 -> [${e.peer}]:123"]
    rule    = "time"
  }
  expect "bypass" {
    packets = ["in icmp echo-request 203.0.113.9 -> 198.51.100.22", "in icmpv6 echo-request 2001:db8:9::1 -> 2001:db8::22"]
    rule    = "ping"
  }
  expect "discard" {
    packets = [
      "in tcp 203.0.113.9:40000 -> 198.51.100.22:80",
      "out tcp 198.51.100.22:40000 -> 203.0.113.9:443",
      "forward tcp 203.0.113.9:40000 -> 10.30.0.10:22",
    ]
  }
}
