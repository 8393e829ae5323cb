policy {
  inbound  = "discard"
  outbound = "bypass"
}

ipsec "lan" {
  mode = "transport"
  ike  = "lan"
}

ike "lan" {
  psk_file = "keys/private.key"
}

ike "other" {
  psk_file = "keys/private.key"
}
