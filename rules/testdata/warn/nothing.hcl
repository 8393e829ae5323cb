policy {
  inbound  = "discard"
  outbound = "bypass"
}

locals {
  nobody = []
}

rule "nobody" {
  action    = "bypass"
  direction = "in"
  remote_address = local.nobody
}

rule "mixed" {
  action    = "bypass"
  direction = "in"
  local_address  = "192.0.2.1"
  remote_address = "2001:db8::/32"
}

rule "icmp6" {
  action    = "bypass"
  direction = "in"
  protocol      = "icmp"
  local_address = "2001:db8::1"
}

rule "icmp4" {
  action    = "bypass"
  direction = "in"
  protocol       = "icmpv6"
  remote_address = "192.0.2.0/24"
}
