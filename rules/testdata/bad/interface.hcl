policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "r" {
  action    = "bypass"
  direction = "in"
  interface = ["eth*0", "a-name-that-is-too-long", "wg/0", ""]
}
