policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "r" {
  action    = "protect"
  direction = "in"
}
