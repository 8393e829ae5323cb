policy {
  inbound  = "discard"
  outbound = "bypass"
}

locals {
  a = 1
}

locals {
  a = 2
}
