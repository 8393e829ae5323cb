policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "a" {
  action = "bypass
  direction = "in"
}

rule "b" {
  action = = "bypass"
  direktion = "in"
}
