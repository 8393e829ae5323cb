policy {
  inbound  = "discard"
  outbound = "bypass"
}

locals {
  lan   = ["10.0.0.0/8"]
  admin = concat(local.lam, ["192.0.2.1"])
}

rule "r" {
  action    = "bypass"
  direction = "in"
  remote_address = concat(local.lan, local.admins)
  protocol       = tcp
  local_port     = locals.lan
  dscp           = konkat([1], [2])
}
