policy {
  inbound  = "discard"
  outbound = "bypass"
}
locals {
  lan = ["192.0.2.0/28", "2001:db8::/64"]
}
rule "past-the-end" {
  action         = "bypass"
  direction      = "in"
  remote_address = cidrhost("192.0.2.0/28", 16)
}
rule "a-list" {
  action         = "bypass"
  direction      = "in"
  remote_address = cidrhost(local.lan, 1)
}
rule "no-network" {
  action         = "bypass"
  direction      = "in"
  remote_address = cidrhost("192.0.2.0/33", 1)
}
rule "nothing-in-it" {
  action    = "bypass"
  direction = "in"
  enabled   = cidrcontains(local.lan, [])
}
rule "no-address" {
  action    = "bypass"
  direction = "in"
  enabled   = cidrcontains(local.lan, "gw.example.net")
}
rule "tried" {
  action         = "bypass"
  direction      = "in"
  remote_address = try(cidrhost("gw.example.net", 0), cidrhost("192.0.2.1", 1))
}
test "written without packets" {
  expect "bypass" {
    packets = []
  }
}
