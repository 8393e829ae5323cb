policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "low" {
  action    = "bypass"
  direction = "in"
  protocol   = "tcp"
  local_port = "0-1023"
}

rule "high" {
  action    = "bypass"
  direction = "in"
  protocol   = "tcp"
  local_port = "1024-65535"
}

rule "ten" {
  action    = "bypass"
  direction = "in"
  protocol       = "tcp"
  remote_address = "10.0.0.0/8"
}
