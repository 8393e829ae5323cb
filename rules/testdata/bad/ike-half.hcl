policy {
  inbound  = "discard"
  outbound = "bypass"
}

ike "a" {
  certificate = "keys/public.pem"
}

ike "b" {
  public_keys = "keys/peers"
  ca          = "keys/public.pem"
}

ike "c" {
  psk_file    = "keys/private.key"
  private_key = "keys/private.key"
}
