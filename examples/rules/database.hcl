# A database server: its application servers get at it, and nobody else. It
# opens nothing by itself but what it needs, so that whoever breaks in cannot
# carry the data out.

policy {
  inbound  = "discard"
  outbound = "discard"
}

# Change these to your own, and the addresses in the tests below with them.
locals {
  applications = ["10.20.0.0/28", "fd00:20::/64"]
  replicas     = ["10.30.0.11", "10.30.0.12"]
  admins       = "10.1.0.0/28"
  resolvers    = ["10.1.0.53", "fd00:1::53"]
  ntp          = ["10.1.0.123", "fd00:1::123"]
  mirrors      = "198.51.100.80"
}

rule "postgres" {
  action         = "bypass"
  direction      = "in"
  protocol       = "tcp"
  remote_address = [local.applications, local.replicas] # lists in lists are one list
  local_port     = 5432
}

rule "ssh" {
  action         = "bypass"
  direction      = "in"
  protocol       = "tcp"
  remote_address = local.admins
  local_port     = 22
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
  remote_address = local.ntp
  remote_port    = 123
}

rule "updates" {
  action         = "bypass"
  direction      = "out"
  protocol       = "tcp"
  remote_address = local.mirrors
  remote_port    = 443
}

rule "leak" {
  description = "a database that wants to go elsewhere is worth a look"
  action      = "discard"
  direction   = "out"
  log         = true
}

test "applications and replicas get in" {
  expect "bypass" {
    packets = [
      "in tcp 10.20.0.3:40000 -> 10.30.0.10:5432",
      "in tcp [fd00:20::3]:40000 -> [fd00:30::10]:5432",
      "in tcp 10.30.0.12:40000 -> 10.30.0.10:5432",
    ]
    rule = "postgres"
  }
  expect "bypass" { packet = "out tcp 10.30.0.10:5432 -> 10.20.0.3:40000 established" }
}

test "administrators get a shell, and no data" {
  expect "bypass" {
    packet = "in tcp 10.1.0.7:40000 -> 10.30.0.10:22"
    rule   = "ssh"
  }
  expect "discard" { packet = "in tcp 10.1.0.7:40000 -> 10.30.0.10:5432" }
}

test "nobody else gets in" {
  expect "discard" {
    packets = [
      "in tcp 10.20.0.16:40000 -> 10.30.0.10:5432",
      "in tcp 203.0.113.9:40000 -> 10.30.0.10:5432",
      "in tcp 10.20.0.3:40000 -> 10.30.0.10:22",
      "in udp 10.20.0.3:40000 -> 10.30.0.10:5432",
    ]
  }
}

test "what the server opens" {
  expect "bypass" {
    packet = "out udp 10.30.0.10:40000 -> 10.1.0.53:53"
    rule   = "names"
  }
  expect "bypass" {
    packet = "out udp [fd00:30::10]:40000 -> [fd00:1::123]:123"
    rule   = "time"
  }
  expect "bypass" {
    packet = "out tcp 10.30.0.10:40000 -> 198.51.100.80:443"
    rule   = "updates"
  }
  expect "discard" {
    packets = ["out tcp 10.30.0.10:40000 -> 203.0.113.9:443", "out udp 10.30.0.10:40000 -> 203.0.113.53:53"]
    rule    = "leak"
  }
}
