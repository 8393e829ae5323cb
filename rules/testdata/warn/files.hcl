policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "r" {
  action    = "protect"
  with      = "lan"
  direction = "both"
}

ipsec "lan" {
  mode = "transport"
  ike  = "lan"
}

ike "lan" {
  certificate = "missing.pem"
  private_key = "missing.key"
  ca          = "keys/public.pem"
}
