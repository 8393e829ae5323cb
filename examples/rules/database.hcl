# A database server: its application servers get at it, and nobody else. It
# opens nothing by itself but what it needs, so that whoever breaks in cannot
# carry the data out.

policy {
  inbound  = "discard"
  outbound = "discard"
}

# Change these to your own: the tests below follow.
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

# For the tests, out of the locals above: the first address of each network there, and
# beside it one of this host that is of the same family.
locals {
  who = {
    applications = local.applications
    replicas     = local.replicas
    admins       = local.admins
    resolvers    = local.resolvers
    ntp          = local.ntp
    mirrors      = local.mirrors
    strangers    = [for a in ["203.0.113.9", "198.51.100.9", "192.0.2.9", "2001:db8:9::9"] : a if !cidrcontains(local.known, a)]
  }
  known     = [local.applications, local.replicas, local.admins, local.resolvers, local.ntp, local.mirrors]
  addresses = { for name, list in local.who : name => [for i, a in flatten([list]) : cidrhost(a, 0) if i < 8] }
  ends = { for name, list in local.addresses : name => [
    for a in list : { peer = a, host = cidrcontains("::/0", a) ? "fd00:30::10" : "10.30.0.10" }
  ] }
}

test "applications and replicas get in" {
  expect "bypass" {
    packets = [for e in concat(local.ends.applications, local.ends.replicas) : "in tcp [${e.peer}]:40000 -> [${e.host}]:5432"]
    rule    = "postgres"
  }
  expect "bypass" { packets = [for e in local.ends.applications : "out tcp [${e.host}]:5432 -> [${e.peer}]:40000 established"] }
}

test "administrators get a shell, and no data" {
  expect "bypass" {
    packets = [for e in local.ends.admins : "in tcp [${e.peer}]:40000 -> [${e.host}]:22"]
    rule    = "ssh"
  }
  expect "discard" {
    packets = [
      for e in local.ends.admins : "in tcp [${e.peer}]:40000 -> [${e.host}]:5432"
      if !cidrcontains([local.applications, local.replicas], e.peer)
    ]
  }
}

test "nobody else gets in" {
  expect "discard" {
    packets = [for e in local.ends.strangers : ["in tcp [${e.peer}]:40000 -> [${e.host}]:5432", "in tcp [${e.peer}]:40000 -> [${e.host}]:22"]]
  }
  expect "discard" {
    packets = [for e in local.ends.applications : "in tcp [${e.peer}]:40000 -> [${e.host}]:22" if !cidrcontains(local.admins, e.peer)]
  }
  expect "discard" { packets = [for e in local.ends.applications : "in udp [${e.peer}]:40000 -> [${e.host}]:5432"] }
}

test "what the server opens" {
  expect "bypass" {
    packets = [for e in local.ends.resolvers : "out udp [${e.host}]:40000 -> [${e.peer}]:53"]
    rule    = "names"
  }
  expect "bypass" {
    packets = [for e in local.ends.ntp : "out udp [${e.host}]:40000 -> [${e.peer}]:123"]
    rule    = "time"
  }
  expect "bypass" {
    packets = [for e in local.ends.mirrors : "out tcp [${e.host}]:40000 -> [${e.peer}]:443"]
    rule    = "updates"
  }
  expect "discard" {
    packets = [for e in local.ends.strangers : ["out tcp [${e.host}]:40000 -> [${e.peer}]:443", "out udp [${e.host}]:40000 -> [${e.peer}]:53"]]
    rule    = "leak"
  }
  expect "discard" {
    packets = ["out tcp 10.30.0.10:40000 -> 203.0.113.9:22", "out icmp echo-request 10.30.0.10 -> 203.0.113.9"]
    rule    = "leak"
  }
}
