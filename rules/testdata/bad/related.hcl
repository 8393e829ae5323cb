policy {
  inbound  = "discard"
  outbound = "bypass"
}
rule "tftp-client" {
  action      = "bypass"
  direction   = "out"
  protocol    = "udp"
  remote_port = 69
}
rule "shut" {
  action    = "discard"
  direction = "out"
}
rule "misspelt" {
  action     = "bypass"
  direction  = "in"
  related_to = "tftp-cleint"
}
rule "of nobody" {
  action     = "bypass"
  direction  = "in"
  related_to = ["tftp-client", "shut"]
}
rule "sealed" {
  action     = "protect"
  with       = "peers"
  direction  = "in"
  related_to = "tftp-client"
}
rule "yes" {
  action     = "bypass"
  direction  = "in"
  related_to = true
}
ipsec "peers" {
  mode = "transport"
  ike  = "peers"
}
ike "peers" {
  psk_file = "keys/psk"
}
test "names" {
  expect "bypass" { packet = "in udp 192.0.2.1:40000 -> 192.0.2.2:3000 related tftp-cleint" }
  expect "bypass" { packet = "in udp 192.0.2.1:40000 -> 192.0.2.2:3000 related" }
}
