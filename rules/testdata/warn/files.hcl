policy {
  inbound  = "discard"
  outbound = "discard"
}
ike "a" {
  psk_file = "nowhere.psk"
}
