policy {
  inbound  = "discard"
  outbound = "bypass"
}

ike "a" {
  psk = "do not write it here"
}
