policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "no-neighbors" {
  action    = "discard"
  direction = "in"
  protocol  = "icmpv6"
  icmp_type = "neighbor-solicitation"
}
