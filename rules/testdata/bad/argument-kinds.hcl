policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "r" {
  action      = "bypass"
  direction   = "in"
  log         = "yes"
  enabled     = 1
  description = ["a", "b"]
  audit       = null
}
