policy {
  inbound  = "discard"
  outbound = "bypass"
}

ike "a" {
  psk_file    = "keys/private.key"
  certificate = "keys/public.pem"
}
