# A web server: everything is shut but the web, and ssh from the networks of
# the administrators. What the server itself opens, it may open.

policy {
  inbound  = "discard"
  outbound = "bypass"
}

locals {
  # Change these to the networks that you sit in.
  admins = ["192.0.2.0/25", "2001:db8:5::/48"]
}

rule "web" {
  action     = "bypass"
  direction  = "in"
  protocol   = "tcp"
  local_port = [80, 443]
}

rule "ssh" {
  action         = "bypass"
  direction      = "in"
  protocol       = "tcp"
  remote_address = local.admins
  local_port     = "ssh"
  log            = true
}
