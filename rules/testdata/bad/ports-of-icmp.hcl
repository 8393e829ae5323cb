policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "r" {
  action    = "bypass"
  direction = "in"
  protocol   = ["tcp", "icmp"]
  local_port = 22
}
