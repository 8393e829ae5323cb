policy "mine" {
  inbound  = "discard"
  outbound = "bypass"
}
