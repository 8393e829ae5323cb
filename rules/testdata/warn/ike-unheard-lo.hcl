policy {
  inbound    = "discard"
  outbound   = "bypass"
  essentials = false
}

# None of these lets a peer in that may come by any interface.
rule "lo" {
  action    = "bypass"
  direction = "both"
  interface = "lo"
}

rule "all of one interface" {
  action    = "bypass"
  direction = "in"
  interface = ["eth7", "lo*"]
}

rule "only the first port" {
  action     = "bypass"
  direction  = "in"
  protocol   = "udp"
  local_port = 500
}

rule "tunnels" {
  action         = "protect"
  with           = "office"
  direction      = "both"
  remote_address = "10.1.0.0/16"
}

ipsec "office" {
  mode = "tunnel"
  ike  = "office"
}

ike "office" {
  remote_endpoint = "203.0.113.1"
  psk_file        = "keys/private.key"
}
