policy {
  inbound    = "discard"
  outbound   = "bypass"
  essentials = false
}
locals {
  lan   = ["192.0.2.0/24", "2001:db8::/48", file("lists/none.txt")]
  first = [for n in flatten([local.lan]) : cidrhost(n, 1)]
  last  = [for n in flatten([local.lan]) : cidrhost(n, -1)]
  peer  = "gw.example.net"
}
rule "printers" {
  action         = "bypass"
  direction      = "out"
  remote_address = concat(local.first, [cidrhost("10.0.0.5-10.0.0.9", 2), try(cidrhost(local.peer, 0), "203.0.113.1")])
  enabled        = cidrcontains(local.lan, local.last) && !cidrcontains(file("lists/drop.txt"), local.first)
}
test "printers" {
  expect "bypass" {
    packets = [for a in local.first : "out tcp ${cidrcontains("::/0", a) ? "2001:db8::9" : "192.0.2.9"} -> [${a}]:631"]
    rule    = "printers"
  }
  expect "discard" { packets = [for a in local.last : "in tcp ${a} -> 192.0.2.9:22" if !cidrcontains("::/0", a)] }
}
test "nothing to expect" {
  expect "discard" { packets = [for a in local.first : "in tcp ${a} -> 192.0.2.9:22" if cidrcontains("10.0.0.0/8", a)] }
}
