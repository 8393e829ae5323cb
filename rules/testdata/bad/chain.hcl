policy {
  inbound  = "discard"
  outbound = "bypass"
}

locals {
  a = !!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!true
}
