policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "r" {
  action    = 1
  direction = ["in", "out"]
}
