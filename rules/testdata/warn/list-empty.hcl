policy {
  inbound    = "discard"
  outbound   = "bypass"
  essentials = false
}

rule "nobody" {
  action         = "bypass"
  direction      = "in"
  remote_address = file("lists/none.txt")
}
