policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "a" {
  action    = "bypass"
  direction = "in"
}

rule "a" {
  action    = "discard"
  direction = "in"
}
