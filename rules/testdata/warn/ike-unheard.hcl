policy {
  inbound    = "discard"
  outbound   = "bypass"
  essentials = false
}

rule "ike of the office" {
  action         = "bypass"
  direction      = "in"
  protocol       = "udp"
  interface      = "eth0"
  local_address  = "192.0.2.7"
  local_port     = [500, 4500]
  remote_address = "203.0.113.1"
}

rule "only the first port" {
  action         = "bypass"
  direction      = "in"
  protocol       = "udp"
  local_port     = 500
  remote_address = "203.0.113.2"
}

rule "no more udp" {
  action    = "discard"
  direction = "in"
  protocol  = "udp"
}

rule "tunnels" {
  action         = "protect"
  with           = "office"
  direction      = "both"
  remote_address = "10.1.0.0/16"
}

rule "home" {
  action         = "protect"
  with           = "home"
  direction      = "both"
  remote_address = "10.2.0.0/16"
}

rule "shop" {
  action         = "protect"
  with           = "shop"
  direction      = "both"
  remote_address = "10.3.0.0/16"
}

ipsec "office" {
  mode = "tunnel"
  ike  = "office"
}

ipsec "home" {
  mode = "tunnel"
  ike  = "home"
}

ipsec "shop" {
  mode = "tunnel"
  ike  = "shop"
}

ike "office" {
  remote_endpoint = "203.0.113.1"
  psk_file        = "keys/private.key"
}

ike "home" {
  remote_endpoint = "203.0.113.2"
  psk_file        = "keys/private.key"
}

ike "shop" {
  remote_endpoint = "203.0.113.3"
  psk_file        = "keys/private.key"
}
