policy {
  inbound  = "discard"
  outbound = "bypass"
}

ike "a" {
  public_keys = "keys/peers"
  private_key = "keys/private.key"
}
