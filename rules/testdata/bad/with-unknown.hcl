policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "r" {
  action    = "protect"
  with      = "branhc"
  direction = "in"
}

ipsec "branch" {
  mode = "transport"
  ike  = "brunch"
}

ike "branch" {
  psk_file = "keys/private.key"
}
