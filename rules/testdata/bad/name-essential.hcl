policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "essential-loopback" {
  action    = "bypass"
  direction = "in"
}
