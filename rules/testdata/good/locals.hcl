policy {
  inbound  = "discard"
  outbound = "bypass"
}

locals {
  all    = concat(local.admins, tolist(local.lan))
  admins = ["192.0.2.1", "2001:db8::/64"]
  nested = { web = { ports = [80, 443] }, lan = "10.0.0.0/8" }
}

locals {
  lan   = toset(["10.0.0.0/8", "172.16.0.0/12"])
  hosts = [for n in range(3) : "198.51.100.${n + 1}"]
  off   = false
}

rule "a" {
  action    = "bypass"
  direction = "in"
  remote_address = local.all
}

rule "b" {
  action    = "bypass"
  direction = "in"
  remote_address = [local.hosts, local.nested.lan]
  protocol       = "tcp"
  local_port     = local.nested["web"].ports
}

rule "c" {
  action    = "bypass"
  direction = "in"
  protocol    = local.off ? "tcp" : "udp"
  remote_port = max(1, 2, 3)
  enabled     = !local.off
  log         = local.off
  local_port  = null
}

rule "d" {
  action    = "bypass"
  direction = "out"
  protocol       = "any"
  remote_address = distinct(flatten([local.admins, [local.lan], ["192.0.2.1"]]))
  local_address  = "any"
  interface      = "wlan*"
}
