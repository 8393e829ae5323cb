policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "r" {
  action    = "bypass"
  direction = "in"
  limit {
    brust = 5
  }
}
