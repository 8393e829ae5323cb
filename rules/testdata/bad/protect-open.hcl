policy {
  inbound    = "discard"
  outbound   = "bypass"
  on_failure = "open"
}

rule "all" {
  action    = "protect"
  with      = "peer"
  direction = "both"
}

ipsec "peer" {
  mode = "transport"
  ike  = "peer"
}

ike "peer" {
  psk_file        = "keys/private.key"
  remote_endpoint = "192.0.2.2"
}
