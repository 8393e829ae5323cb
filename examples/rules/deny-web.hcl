# A workstation that may not open the web, by ports 80, 443, 8080 and 8443, but
# to the servers on a list; a proxy, a tunnel or ssh on another port stays open.
# Names are resolved by the resolvers of the house only: a resolver outside would
# be a way around the list. Who wants those ways shut as well says outbound =
# "discard", and names what may be opened.

policy {
  inbound  = "discard"
  outbound = "bypass"
}

# Change these to your own, and the addresses in the tests below with them.
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

test "the servers on the list can be reached" {
  expect "bypass" {
    packets = [
      "out tcp 192.0.2.7:40000 -> 198.51.100.80:80",
      "out tcp 192.0.2.7:40000 -> 203.0.113.15:443",
      "out udp [2001:db8::7]:40000 -> [2001:db8:80::1]:443",
    ]
    rule = "allowed-web"
  }
  expect "bypass" { packet = "in tcp 198.51.100.80:80 -> 192.0.2.7:40000 established" }
}

test "the rest of the web cannot" {
  expect "discard" {
    packets = [
      "out tcp 192.0.2.7:40000 -> 203.0.113.16:80",
      "out tcp 192.0.2.7:40000 -> 203.0.113.16:443",
      "out udp 192.0.2.7:40000 -> 203.0.113.16:443",
      "out tcp [2001:db8::7]:40000 -> [2001:db8:81::1]:8080",
    ]
    rule = "no-web"
  }
}

test "names come from the resolvers of the house" {
  expect "bypass" {
    packets = ["out udp 192.0.2.7:40000 -> 192.0.2.53:53", "out tcp [2001:db8::7]:40000 -> [2001:db8::53]:53"]
    rule    = "dns"
  }
  expect "discard" {
    packets = ["out udp 192.0.2.7:40000 -> 203.0.113.53:53", "out tcp 192.0.2.7:40000 -> 192.0.2.53:853"]
    rule    = "no-other-dns"
  }
}

test "everything else goes on as before" {
  expect "bypass" { packets = ["out tcp 192.0.2.7:40000 -> 203.0.113.16:22", "out icmp echo-request 192.0.2.7 -> 203.0.113.16"] }
  expect "discard" { packet = "in tcp 203.0.113.16:40000 -> 192.0.2.7:22" }
}
