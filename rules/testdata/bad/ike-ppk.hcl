policy {
  inbound  = "discard"
  outbound = "bypass"
}

ike "a" {
  psk_file        = "keys/private.key"
  ppk_id          = "x"
  ppk_required    = true
  request_address = true
  pool            = "10.99.0.0/24"
}
