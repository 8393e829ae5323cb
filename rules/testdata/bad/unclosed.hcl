policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "a" {
  action = "bypass"
