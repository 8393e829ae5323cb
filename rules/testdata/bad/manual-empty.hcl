policy {
  inbound  = "discard"
  outbound = "bypass"
}

ipsec "x" {
  mode = "tunnel"
  manual {
  }
}
