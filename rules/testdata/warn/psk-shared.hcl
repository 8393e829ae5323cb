policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "people" {
  action         = "protect"
  with           = "people"
  direction      = "both"
  remote_address = "10.1.0.0/16"
}

ipsec "people" {
  mode = "tunnel"
  ike  = "people"
}

ike "people" {
  remote_id = "*@example.org"
  psk_file  = "keys/private.key"
}

rule "anybody" {
  action         = "protect"
  with           = "anybody"
  direction      = "both"
  remote_address = "10.2.0.0/16"
}

ipsec "anybody" {
  mode = "tunnel"
  ike  = "anybody"
}

ike "anybody" {
  psk_file = "keys/private.key"
}

rule "range" {
  action         = "protect"
  with           = "range"
  direction      = "both"
  remote_address = "10.3.0.0/16"
}

ipsec "range" {
  mode = "tunnel"
  ike  = "range"
}

ike "range" {
  remote_endpoint = "203.0.113.0/24"
  psk_file        = "keys/private.key"
}

rule "one" {
  action         = "protect"
  with           = "one"
  direction      = "both"
  remote_address = "10.4.0.0/16"
}

ipsec "one" {
  mode = "tunnel"
  ike  = "one"
}

ike "one" {
  remote_id = "ann@example.org"
  psk_file  = "keys/private.key"
}

rule "host" {
  action         = "protect"
  with           = "host"
  direction      = "both"
  remote_address = "10.5.0.0/16"
}

ipsec "host" {
  mode = "tunnel"
  ike  = "host"
}

ike "host" {
  remote_endpoint = "203.0.113.7"
  psk_file        = "keys/private.key"
}

rule "certified" {
  action         = "protect"
  with           = "certified"
  direction      = "both"
  remote_address = "10.6.0.0/16"
}

ipsec "certified" {
  mode = "tunnel"
  ike  = "certified"
}

ike "certified" {
  local_id    = "gw.example.org"
  remote_id   = "*@example.org"
  public_keys = "keys/peers/"
  private_key = "keys/private.key"
}
