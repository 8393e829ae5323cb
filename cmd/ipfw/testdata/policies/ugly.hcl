policy {
inbound="discard"
  outbound   = "bypass"
}
