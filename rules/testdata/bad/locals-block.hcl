policy {
  inbound  = "discard"
  outbound = "bypass"
}

locals {
  hosts {
    a = 1
  }
}
