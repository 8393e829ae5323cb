policy {
  inbound  = "discard"
  outbound = "bypass"
}

ike "a" {
}
