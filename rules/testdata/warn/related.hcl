policy {
  inbound  = "discard"
  outbound = "bypass"
}
rule "off" {
  enabled     = false
  action      = "bypass"
  direction   = "out"
  protocol    = "udp"
  remote_port = 69
}
rule "watched" {
  audit       = true
  action      = "bypass"
  direction   = "out"
  protocol    = "udp"
  remote_port = 69
}
rule "data" {
  action     = "bypass"
  direction  = "in"
  protocol   = "udp"
  related_to = ["off", "watched", "data"]
}
rule "none" {
  action     = "bypass"
  direction  = "in"
  related_to = []
}
