policy {
  inbund   = "discard"
  outbound = "alow"
}
rule "ssh" {
  action         = "permit"
  direction      = "inbound"
  protocol       = "tpc"
  remote_address = ["192.0.2.1/24", local.admin, "10.0.0.300"]
  port           = 22
}
locals {
  admins = ["10.0.0.0/8"]
}
ruel "x" {
}
