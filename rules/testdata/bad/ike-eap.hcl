policy {
  inbound  = "discard"
  outbound = "discard"
}
rule "callers" {
  action         = "protect"
  with           = "callers"
  direction      = "both"
  remote_address = "10.99.0.0/24"
}
ipsec "callers" {
  mode = "tunnel"
  ike  = "users"
}
ipsec "others" {
  mode = "tunnel"
  ike  = "others"
}
ike "users" {
  remote_endpoint = "203.0.113.7"
  local_id        = "vpn.example.org"
  public_keys     = "keys/peers"
  private_key     = "keys/private.key"
  ppk_file        = "keys/private.key"
  request_address = true
  remote_auth     = "eap-tls"
  initiate        = "traffic"
}
ike "others" {
  certificate = "keys/public.pem"
  private_key = "keys/private.key"
  ca          = "keys/public.pem"
  remote_auth = "eap-mschapv2"
}
