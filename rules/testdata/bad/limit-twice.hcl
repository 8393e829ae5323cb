policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "r" {
  action    = "bypass"
  direction = "in"
  limit { rate = "10/minute" }
  limit { rate = "20/minute" }
}
