policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "r" {
  action    = "bypass"
  direction = "in"
  protocol    = "tcp"
  local_port  = [65536, "9-1", "shh", "1-x", "80:90", 1.5]
  remote_port = "70000-80000"
}
