policy {
  inbound  = "discard"
  outbound = "bypass"
}
rule "not-there" {
  action         = "bypass"
  direction      = "in"
  remote_address = file("lists/there.txt")
}
rule "wrong" {
  action         = "bypass"
  direction      = "in"
  remote_address = ["192.0.2.1", file("lists/wrong.txt")]
}
rule "folder" {
  action         = "bypass"
  direction      = "in"
  remote_address = file("lists")
}
rule "ports" {
  action     = "bypass"
  direction  = "in"
  protocol   = "tcp"
  local_port = file("lists/drop.txt")
}
rule "joined" {
  action         = "bypass"
  direction      = "in"
  remote_address = reverse(file("lists/drop.txt"))
}
rule "text" {
  action         = "bypass"
  direction      = "in"
  remote_address = "${file("lists/drop.txt")}"
  description    = file("lists/drop.txt")
}
rule "number" {
  action         = "bypass"
  direction      = "in"
  remote_address = file(17)
}
