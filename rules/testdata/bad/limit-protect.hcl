policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "r" {
  action    = "protect"
  with      = "lan"
  direction = "in"
  limit {
    rate = "1/second"
  }
}

ipsec "lan" {
  mode = "transport"
  ike  = "lan"
}

ike "lan" {
  psk_file = "keys/private.key"
}
