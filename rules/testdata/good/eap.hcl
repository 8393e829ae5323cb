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
ike "users" {
  pool        = "10.99.0.0/24"
  local_id    = "vpn.example.org"
  remote_id   = "*@example.org"
  remote_auth = "eap-tls"
  certificate = "keys/public.pem"
  private_key = "keys/private.key"
  ca          = "keys/public.pem"
}
