policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "some" {
  action    = "bypass"
  direction = "in"
  dscp = ["ef", "cs1"]
}

rule "voice" {
  action    = "bypass"
  direction = "in"
  dscp     = "ef"
  protocol = "udp"
}

rule "reached" {
  action    = "bypass"
  direction = "in"
  dscp = "cs2"
}
