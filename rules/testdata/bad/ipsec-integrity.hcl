policy {
  inbound  = "discard"
  outbound = "bypass"
}

ipsec "cbc" {
  mode       = "tunnel"
  ike        = "a"
  encryption = "aes-256-cbc"
}

ipsec "gcm" {
  mode       = "tunnel"
  ike        = "a"
  encryption = "aes-256-gcm-16"
  integrity  = "hmac-sha2-256-128"
}

ipsec "ah" {
  mode          = "transport"
  ike           = "a"
  protocol      = "ah"
  encapsulation = "udp"
  encryption    = "aes-256-cbc"
}

ike "a" {
  psk_file = "keys/private.key"
}
