rule "r" {
  action    = "bypass"
  direction = "in"
}
