policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "r" {
  direction = "in"
}
