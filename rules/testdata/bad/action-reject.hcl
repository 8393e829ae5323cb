policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "r" {
  action    = "reject"
  direction = "in"
}
