policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "a-b" {
  action         = "discard"
  direction      = "forward"
  local_address  = "10.1.0.0/16"
  remote_address = "10.2.0.0/16"
}

rule "b-a" {
  action         = "bypass"
  direction      = "forward"
  opened_by      = "remote"
  local_address  = "10.2.0.0/24"
  remote_address = "10.1.0.0/24"
}
