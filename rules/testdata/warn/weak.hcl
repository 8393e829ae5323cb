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
  mode       = "transport"
  ike        = "lan"
  encryption = "insecure-null"
  integrity  = "hmac-sha1-96"
}

ike "lan" {
  psk_file     = "keys/private.key"
  prf          = "prf-hmac-sha1"
  key_exchange = "modp-2048"
}
