policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "r" {
  action    = "bypass"
  direction = "in"
  protocol  = ["icmp", "tcp"]
  icmp_type = "echo-request"
}
