policy {
  inbound  = "discard"
  outbound = "bypass"
}
rule "answers" {
  action            = "bypass"
  direction         = "in"
  protocol          = "udp"
  answers_multicast = "5s"
}
rule "all-the-same" { # reached: not everything is an answer
  action    = "bypass"
  direction = "in"
  protocol  = "udp"
}
rule "too-late" {
  action            = "bypass"
  direction         = "in"
  protocol          = "udp"
  local_port        = 5353
  answers_multicast = "5s"
}
rule "group" {
  action            = "bypass"
  direction         = "in"
  protocol          = "udp"
  local_address     = ["224.0.0.251", "ff02::fb", "255.255.255.255"]
  answers_multicast = "5s"
}
