policy {
  inbound  = "discard"
  outbound = "bypass"
}

ipsec "x" {
  protocol = "esp"
}
