policy {
  inbound  = "discard"
  outbound = "discard"
}

rule "tftp" {
  action      = "bypass"
  direction   = "out"
  protocol    = "udp"
  remote_port = 69
}

rule "stream" {
  action     = "bypass"
  direction  = "in"
  protocol   = "udp"
  local_port = 5000
}

rule "tftp-data" {
  action     = "bypass"
  direction  = "in"
  protocol   = "udp"
  local_port = "1024-65535"
  related_to = "tftp"
}
