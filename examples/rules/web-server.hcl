# A web server: everything is shut but the web, and ssh from the networks of
# the administrators. What the server itself opens, it may open.

policy {
  inbound  = "discard"
  outbound = "bypass"
}

locals {
  # Change these to the networks that you sit in: the tests below follow.
  admins = ["192.0.2.0/25", "2001:db8:5::/48"]
}

rule "web" {
  action     = "bypass"
  direction  = "in"
  protocol   = "tcp"
  local_port = [80, 443]
}

rule "ssh" {
  action         = "bypass"
  direction      = "in"
  protocol       = "tcp"
  remote_address = local.admins
  local_port     = 22
  log            = true
}

# For the tests, out of the locals above: the first address of each network there, and
# beside it one of this host that is of the same family.
locals {
  who = {
    admins    = local.admins
    strangers = [for a in ["203.0.113.9", "198.51.100.9", "192.0.2.9", "2001:db8:9::9"] : a if !cidrcontains(local.admins, a)]
  }
  addresses = { for name, list in local.who : name => [for i, a in flatten([list]) : cidrhost(a, 0) if i < 8] }
  ends = { for name, list in local.addresses : name => [
    for a in list : { peer = a, host = cidrcontains("::/0", a) ? "2001:db8::10" : "198.51.100.10" }
  ] }
}

test "the web is open to everybody" {
  expect "bypass" {
    packets = [
      "in tcp 203.0.113.9:40000 -> 198.51.100.10:80",
      "in tcp 203.0.113.9:40000 -> 198.51.100.10:443",
      "in tcp [2001:db8:9::1]:40000 -> [2001:db8::10]:443",
    ]
    rule = "web"
  }
  # The answers need no rule: they belong to the flow.
  expect "bypass" { packet = "out tcp 198.51.100.10:443 -> 203.0.113.9:40000 established" }
}

test "ssh is for administrators" {
  expect "bypass" {
    packets = [for e in local.ends.admins : "in tcp [${e.peer}]:40000 -> [${e.host}]:22"]
    rule    = "ssh"
  }
  expect "discard" { packets = [for e in local.ends.strangers : "in tcp [${e.peer}]:40000 -> [${e.host}]:22"] }
}

test "nothing else is open" {
  expect "discard" {
    packets = [
      "in tcp 203.0.113.9:40000 -> 198.51.100.10:5432",
      "in udp 203.0.113.9:40000 -> 198.51.100.10:443",
      "in icmp echo-request 203.0.113.9 -> 198.51.100.10",
      "forward tcp 203.0.113.9:40000 -> 198.51.100.10:80",
    ]
  }
  expect "discard" { packets = [for e in local.ends.admins : "in tcp [${e.peer}]:40000 -> [${e.host}]:5432"] }
}

test "the server fetches its updates" {
  expect "bypass" {
    packets = [
      "out tcp 198.51.100.10:50000 -> 203.0.113.80:443",
      "in tcp 203.0.113.80:443 -> 198.51.100.10:50000 established",
    ]
  }
  expect "discard" { packet = "in tcp 203.0.113.80:443 -> 198.51.100.10:50000" }
}
