policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "ports" {
  action    = "bypass"
  direction = "in"
  interface = ["w*", "eth0"]
}

rule "wg" {
  action    = "bypass"
  direction = "in"
  interface = ["wg*", "eth0"]
  protocol  = "tcp"
}

rule "reached" {
  action    = "bypass"
  direction = "in"
  interface = "eth1"
}
