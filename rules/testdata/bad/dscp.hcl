policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "r" {
  action    = "bypass"
  direction = "in"
  dscp = ["cs9", 64, "af44", "eff"]
}
