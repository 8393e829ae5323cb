policy {
  inbound = "drop"
}

rule "web" {
  action     = "bypass"
  direction  = "in"
  protocol   = "tpc"
  local_prot = 80
}
