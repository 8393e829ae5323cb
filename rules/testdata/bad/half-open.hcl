policy {
  inbound   = "discard"
  outbound  = "bypass"
  half_open = "any"
}
rule "r" {
  action    = "discard"
  direction = "forward"
  half_open = "bypass"
}
