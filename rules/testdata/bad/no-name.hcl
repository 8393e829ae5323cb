policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule {
  action    = "bypass"
  direction = "in"
}
