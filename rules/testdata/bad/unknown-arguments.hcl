policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "r" {
  action    = "bypass"
  direction = "in"
  dport     = 22
  source    = "10.0.0.0/8"
  comment   = "x"
  enable    = false
  xyzzy     = 1
  interfaces = "eth0"
}
