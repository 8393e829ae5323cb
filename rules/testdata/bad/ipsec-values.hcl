policy {
  inbound  = "discard"
  outbound = "bypass"
}

ipsec "x" {
  mode            = "tunel"
  protocol        = "gre"
  ike             = "a"
  encapsulation   = "tcp"
  local_endpoint  = "10.0.0.0/24"
  remote_endpoint = "gate.example.org"
  replay_window   = 16
  esn             = "on"
  lifetime        = "forever"
  lifetime_bytes  = "1 zettabyte"
  encryption      = ["aes-gcm", "aes-128-gcm-61"]
  integrity       = "md5"
  key_exchange    = ["curve25519", "modp-1024"]
}

ike "a" {
  psk_file = "keys/private.key"
}
