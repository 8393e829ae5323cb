policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "r" {
  action    = "bypass"
  direction = "in"
  opened_by = "local"
}
