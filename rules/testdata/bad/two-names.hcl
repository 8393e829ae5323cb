policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "a" "b" {
  action    = "bypass"
  direction = "in"
}
