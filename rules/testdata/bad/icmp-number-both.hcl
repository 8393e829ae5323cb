policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "r" {
  action    = "bypass"
  direction = "in"
  protocol  = ["icmp", "icmpv6"]
  icmp_type = [8, "ping"]
}
