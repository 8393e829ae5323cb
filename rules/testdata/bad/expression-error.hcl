policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "r" {
  action    = "bypass"
  direction = "in"
  remote_address = concat("a", 1)
  local_address  = local["x"]
  protocol       = 1 + "a"
}
