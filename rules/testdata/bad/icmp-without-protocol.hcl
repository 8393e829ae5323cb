policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "r" {
  action    = "bypass"
  direction = "in"
  icmp_type = "echo-request"
}
