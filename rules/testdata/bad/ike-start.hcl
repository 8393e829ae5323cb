policy {
  inbound  = "discard"
  outbound = "bypass"
}

ike "a" {
  psk_file        = "keys/private.key"
  remote_endpoint = "10.0.0.0/24"
  initiate        = "start"
}
