policy {
  inbound  = "discard"
  outbound = "bypass"
}

locals {
  a = local.b
  b = [local.c]
  c = local.a
  d = local.d
}

rule "r" {
  action    = "bypass"
  direction = "in"
  remote_address = local.a
}
