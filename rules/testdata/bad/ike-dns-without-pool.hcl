policy {
  inbound  = "discard"
  outbound = "bypass"
}

ike "a" {
  psk_file = "keys/private.key"
  dns      = "10.0.0.53"
}
