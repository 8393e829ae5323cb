policy {
  inbound  = "discard"
  outbound = "bypass"
}

ipsec "x" {
  mode          = "transport"
  ike           = "a"
  replay_window = 0
  tfc_padding   = 100
  dummy_packets = "2000/second"
  integrity     = "aes-128-gmac"
  outer {
    df   = "keep"
    dscp = "af99"
    ttl  = 0
  }
}

ike "a" {
  psk_file = "keys/private.key"
}
