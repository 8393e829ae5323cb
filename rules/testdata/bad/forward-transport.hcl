policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "r" {
  action    = "protect"
  with      = "lan"
  direction = "forward"
}

ipsec "lan" {
  mode = "transport"
  ike  = "lan"
}

ike "lan" {
  psk_file = "keys/private.key"
}
