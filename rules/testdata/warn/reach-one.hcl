policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "all-tcp" {
  action    = "bypass"
  direction = "in"
  protocol  = "tcp"
}

rule "ssh" {
  action    = "bypass"
  direction = "in"
  protocol   = "tcp"
  local_port = 22
}
