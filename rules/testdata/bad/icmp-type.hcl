policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "r" {
  action    = "bypass"
  direction = "in"
  protocol  = "icmp"
  icmp_type = ["echo-requst", "packet-too-big", 256, "echo-request/300", "8/x"]
}
