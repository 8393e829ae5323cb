# A bastion: the one host that can be reached by ssh from outside, and from
# which the hosts inside can be reached by ssh. It does nothing else.

policy {
  inbound  = "discard"
  outbound = "discard"
}

# Change these to your own, and the addresses in the tests below with them.
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

test "ssh in, from anywhere" {
  expect "bypass" {
    packets = ["in tcp 203.0.113.9:40000 -> 198.51.100.22:22", "in tcp [2001:db8:9::1]:40000 -> [2001:db8::22]:22"]
    rule    = "ssh-in"
  }
  expect "bypass" { packet = "out tcp 198.51.100.22:22 -> 203.0.113.9:40000 established" }
}

test "ssh on, to the inside only" {
  expect "bypass" {
    packets = ["out tcp 10.1.0.22:40000 -> 10.30.0.10:22", "out tcp [fd00:1::22]:40000 -> [fd00:30::10]:22"]
    rule    = "ssh-on"
  }
  expect "discard" { packets = ["out tcp 198.51.100.22:40000 -> 203.0.113.9:22", "out tcp 10.1.0.22:40000 -> 10.30.0.10:5432"] }
}

test "and little else" {
  expect "bypass" {
    packet = "out udp 10.1.0.22:40000 -> 10.1.0.53:53"
    rule   = "names"
  }
  expect "bypass" {
    packet = "out udp 10.1.0.22:40000 -> 10.1.0.123:123"
    rule   = "time"
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
