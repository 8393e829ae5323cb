policy {
  inbound  = "discard"
  outbound = "bypass"
}

policy {
  inbound  = "discard"
  outbound = "bypass"
}

