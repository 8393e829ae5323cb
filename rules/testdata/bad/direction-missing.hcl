policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "r" {
  action = "bypass"
}
