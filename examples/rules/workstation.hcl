# A workstation or laptop: it opens what it likes, and nobody opens anything to
# it, but a ping, and in the home network the printers and players that
# announce themselves. What it asks everybody on its link, neighbours may answer.

policy {
  inbound  = "discard"
  outbound = "bypass"
}

locals {
  # Private addresses of both families, and those of the own link. The tests follow them.
  home = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fe80::/10"]
}

rule "ping" {
  action    = "bypass"
  direction = "in"
  protocol  = ["icmp", "icmpv6"]
  icmp_type = "echo-request"
  limit {
    rate = "10/second"
    per  = "remote_address"
  }
}

rule "mdns" {
  description    = "announcements of printers and players, RFC 6762"
  action         = "bypass"
  direction      = "in"
  protocol       = "udp"
  remote_address = local.home
  local_address  = ["224.0.0.251", "ff02::fb"]
  local_port     = 5353
}

# Devices answer SSDP within five seconds (UPnP Device Architecture), the others
# at once.
rule "answers" {
  description       = "unicast answers to its own questions to groups and broadcast: SSDP, LLMNR, mDNS, NetBIOS, SNMP"
  action            = "bypass"
  direction         = "in"
  protocol          = "udp"
  answers_multicast = "6s"
}

rule "windows-shares-at-home" {
  action         = "bypass"
  direction      = "out"
  protocol       = ["tcp", "udp"]
  remote_address = local.home
  remote_port    = ["137-139", 445]
}

# A link in a web page can make a machine offer its password to a stranger.
rule "no-windows-shares" {
  action      = "discard"
  direction   = "out"
  protocol    = ["tcp", "udp"]
  remote_port = ["137-139", 445]
  reject      = true
}

rule "no-telnet" {
  action      = "discard"
  direction   = "out"
  protocol    = "tcp"
  remote_port = "telnet"
  reject      = true
}

# For the tests, out of the local above: the first address of each network there, and
# beside it one of this host, and of mDNS, that is of the same family.
locals {
  who = {
    home      = local.home
    strangers = [for a in ["203.0.113.9", "198.51.100.9", "192.0.2.9", "2001:db8:9::9"] : a if !cidrcontains(local.home, a)]
  }
  addresses = { for name, list in local.who : name => [for i, a in flatten([list]) : cidrhost(a, 0) if i < 8] }
  ends = { for name, list in local.addresses : name => [
    for a in list : { peer = a, host = cidrcontains("::/0", a) ? "2001:db8::7" : "192.168.1.7", mdns = cidrcontains("::/0", a) ? "ff02::fb" : "224.0.0.251" }
  ] }
}

test "nobody opens anything to it" {
  expect "discard" {
    packets = [
      "in tcp 203.0.113.9:40000 -> 192.168.1.7:22",
      "in tcp 192.168.1.9:40000 -> 192.168.1.7:445",
      "in udp [2001:db8::9]:40000 -> [2001:db8::7]:5353",
    ]
  }
  expect "bypass" {
    packets = ["in icmp echo-request 192.168.1.9 -> 192.168.1.7", "in icmpv6 echo-request fe80::9 -> fe80::7"]
    rule    = "ping"
  }
}

test "the printer is found" {
  expect "bypass" {
    packets = [for e in local.ends.home : "in udp [${e.peer}]:5353 -> [${e.mdns}]:5353"]
    rule    = "mdns"
  }
  expect "discard" { packets = [for e in local.ends.strangers : "in udp [${e.peer}]:5353 -> [${e.mdns}]:5353"] }
}

test "who is asked may answer" {
  expect "bypass" {
    packets = [
      "in udp 192.168.1.9:1900 -> 192.168.1.7:50000 answer",
      "in udp [fe80::9]:5355 -> [fe80::7]:50000 answer",
    ]
    rule = "answers"
  }
  expect "discard" {
    packets = [
      "in udp 192.168.1.9:1900 -> 192.168.1.7:50000",
      "in udp [fe80::9]:5355 -> [fe80::7]:50000",
    ]
  }
}

test "it opens what it likes" {
  expect "bypass" {
    packets = [
      "out tcp 192.168.1.7:40000 -> 203.0.113.9:443",
      "in tcp 203.0.113.9:443 -> 192.168.1.7:40000 established",
      "out udp 192.168.1.7:40000 -> 203.0.113.9:443",
      "out icmp echo-request 192.168.1.7 -> 203.0.113.9",
    ]
  }
}

test "but no password to a stranger" {
  expect "bypass" {
    packets = [for e in local.ends.home : "out tcp [${e.host}]:40000 -> [${e.peer}]:445"]
    rule    = "windows-shares-at-home"
  }
  expect "discard" {
    packets = [for e in local.ends.strangers : "out tcp [${e.host}]:40000 -> [${e.peer}]:445"]
    rule    = "no-windows-shares"
  }
  expect "discard" {
    packet = "out tcp 192.168.1.7:40000 -> 203.0.113.9:23"
    rule   = "no-telnet"
  }
}
