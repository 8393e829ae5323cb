policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "a" {
  action         = "protect"
  with           = "in-udp"
  direction      = "both"
  remote_address = "10.2.0.0/16"
}

rule "b" {
  action         = "protect"
  with           = "native"
  direction      = "both"
  remote_address = "10.3.0.0/16"
}

rule "c" {
  action         = "protect"
  with           = "user"
  direction      = "both"
  remote_address = "10.4.0.0/16"
}

ipsec "in-udp" {
  mode          = "tunnel"
  ike           = "peer"
  encapsulation = "udp"
}

ipsec "native" {
  mode          = "tunnel"
  ike           = "peer"
  encapsulation = "none"
}

ipsec "user" {
  mode = "transport"
  ike  = "gateway"
}

ike "peer" {
  remote_endpoint = "192.0.2.1"
  psk_file        = "keys/private.key"
}

ike "gateway" {
  remote_endpoint = "192.0.2.2"
  request_address = true
  psk_file        = "keys/private.key"
}
