policy {
  inbound  = "discard"
  outbound = "bypass"
}

ipsec "x" {
  mode = "transport"
  ike  = "a"
}

ike "a" {
  psk_file = "keys/private.key"
  pool     = "10.99.0.0/24"
}
