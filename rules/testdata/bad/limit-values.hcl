policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "r" {
  action    = "bypass"
  direction = "in"
  limit {
    rate  = "ten per minute"
    burst = 0
    per   = "remote"
  }
}
