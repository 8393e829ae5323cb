policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "r" {
  action    = "bypass"
  direction = "in"
  protocol  = ["tpc", 256, "http", true, -1]
}
