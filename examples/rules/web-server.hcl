# A web server: everything is shut but the web, and ssh from the networks of
# the administrators. What the server itself opens, it may open.

policy {
  inbound  = "discard"
  outbound = "bypass"
}

locals {
  # Change these to the networks that you sit in, and the addresses in the tests
  # below with them.
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
    packets = [
      "in tcp 192.0.2.7:40000 -> 198.51.100.10:22",
      "in tcp [2001:db8:5::7]:40000 -> [2001:db8::10]:22",
    ]
    rule = "ssh"
  }
  expect "discard" { packet = "in tcp 192.0.2.200:40000 -> 198.51.100.10:22" }
}

test "nothing else is open" {
  expect "discard" {
    packets = [
      "in tcp 203.0.113.9:40000 -> 198.51.100.10:5432",
      "in udp 203.0.113.9:40000 -> 198.51.100.10:443",
      "in tcp [2001:db8:9::1]:40000 -> [2001:db8::10]:22",
      "in icmp echo-request 203.0.113.9 -> 198.51.100.10",
      "forward tcp 203.0.113.9:40000 -> 198.51.100.10:80",
    ]
  }
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
