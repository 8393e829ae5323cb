policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "all" {
  action         = "protect"
  with           = "x"
  direction      = "both"
  remote_address = "2001:db8::/32"
}

ipsec "x" {
  mode            = "transport"
  ike             = "a"
  local_endpoint  = "fe80::7"
}

ike "a" {
  remote_endpoint = ["fe80::1%eth0", "fe80::1", "fe80::/64", "2001:db8::1"]
  psk_file        = "keys/private.key"
}

ike "b" {
  local_endpoint  = "fe80::9"
  remote_endpoint = "2001:db8::1"
  psk_file        = "keys/private.key"
}
