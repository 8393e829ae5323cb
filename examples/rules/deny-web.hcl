# A workstation that may not open the web, by ports 80, 443, 8080 and 8443, but
# to the servers on a list; a proxy, a tunnel or ssh on another port stays open.
# Names are resolved by the resolvers of the house only: a resolver outside would
# be a way around the list. Who wants those ways shut as well says outbound =
# "discard", and names what may be opened.

policy {
  inbound  = "discard"
  outbound = "bypass"
}

# Change these to your own: the tests below follow.
locals {
  allowed   = ["198.51.100.80", "203.0.113.0/28", "2001:db8:80::/64"]
  resolvers = ["192.0.2.53", "2001:db8::53"]
  web       = [80, 443, 8080, 8443]
}

rule "allowed-web" {
  action         = "bypass"
  direction      = "out"
  protocol       = ["tcp", "udp"] # HTTP and HTTPS; QUIC is UDP
  remote_address = local.allowed
  remote_port    = local.web
}

rule "no-web" {
  action      = "discard"
  direction   = "out"
  protocol    = ["tcp", "udp"]
  remote_port = local.web
  reject      = true # the browser says so at once, and does not wait
  log         = true
}

rule "dns" {
  action         = "bypass"
  direction      = "out"
  protocol       = ["tcp", "udp"]
  remote_address = local.resolvers
  remote_port    = 53
}

rule "no-other-dns" {
  action      = "discard"
  direction   = "out"
  protocol    = ["tcp", "udp"]
  remote_port = [53, 853] # 853: DNS over TLS and over QUIC
  reject      = true
}

# For the tests, out of the locals above: the first address of each network there, and
# beside it one of this host that is of the same family; the first port of each range.
locals {
  who = {
    allowed   = local.allowed
    resolvers = local.resolvers
    strangers = [for a in ["203.0.113.9", "198.51.100.9", "192.0.2.9", "2001:db8:9::9"] : a if !cidrcontains([local.allowed, local.resolvers], a)]
  }
  addresses = { for name, list in local.who : name => [for i, a in flatten([list]) : cidrhost(a, 0) if i < 8] }
  ends = { for name, list in local.addresses : name => [
    for a in list : { peer = a, host = cidrcontains("::/0", a) ? "2001:db8::7" : "192.0.2.7" }
  ] }
  ports = [for i, p in flatten([local.web]) : upper(p) == lower(p) ? trimspace(split("-", p)[0]) : p if i < 8] # a name may have a dash
}

test "the servers on the list can be reached" {
  expect "bypass" {
    packets = [for e in local.ends.allowed : [for p in local.ports : [
      "out tcp [${e.host}]:40000 -> [${e.peer}]:${p}",
      "out udp [${e.host}]:40000 -> [${e.peer}]:${p}",
    ]]]
    rule = "allowed-web"
  }
  expect "bypass" {
    packets = [for e in local.ends.allowed : [for p in local.ports : "in tcp [${e.peer}]:${p} -> [${e.host}]:40000 established"]]
  }
}

test "the rest of the web cannot" {
  expect "discard" {
    packets = [for e in local.ends.strangers : [for p in local.ports : [
      "out tcp [${e.host}]:40000 -> [${e.peer}]:${p}",
      "out udp [${e.host}]:40000 -> [${e.peer}]:${p}",
    ]]]
    rule = "no-web"
  }
}

test "names come from the resolvers of the house" {
  expect "bypass" {
    packets = [for e in local.ends.resolvers : ["out udp [${e.host}]:40000 -> [${e.peer}]:53", "out tcp [${e.host}]:40000 -> [${e.peer}]:53"]]
    rule    = "dns"
  }
  expect "discard" {
    packets = [for e in local.ends.strangers : ["out udp [${e.host}]:40000 -> [${e.peer}]:53", "out tcp [${e.host}]:40000 -> [${e.peer}]:853"]]
    rule    = "no-other-dns"
  }
  expect "discard" {
    packets = [for e in local.ends.resolvers : "out tcp [${e.host}]:40000 -> [${e.peer}]:853"]
    rule    = "no-other-dns"
  }
}

test "everything else goes on as before" {
  expect "bypass" { packet = "out icmp echo-request 192.0.2.7 -> 203.0.113.16" }
  expect "discard" { packet = "in tcp 203.0.113.16:40000 -> 192.0.2.7:22" }
}
