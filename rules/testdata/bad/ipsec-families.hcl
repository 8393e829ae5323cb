policy {
  inbound  = "discard"
  outbound = "bypass"
}

ipsec "x" {
  mode            = "tunnel"
  ike             = "a"
  local_endpoint  = "192.0.2.1"
  remote_endpoint = "2001:db8::1"
}

ike "a" {
  psk_file        = "keys/private.key"
  remote_endpoint = "203.0.113.0/24"
}
