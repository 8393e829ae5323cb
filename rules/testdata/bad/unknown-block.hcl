policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "r" {
  action    = "bypass"
  direction = "in"
  limits {
    rate = "1/second"
  }
  log {
  }
}
