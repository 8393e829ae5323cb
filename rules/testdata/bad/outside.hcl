inbound = "discard"
policy {
  inbound  = "discard"
  outbound = "bypass"
}

