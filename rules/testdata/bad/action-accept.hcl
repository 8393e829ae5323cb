policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "r" {
  action    = "accept"
  direction = "ingress"
}
