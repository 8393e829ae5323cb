policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "web" {
  action    = "bypass"
  direction = "in"
}

test "t" {
}

test "u" {
  expect "bypass" {
  }
}
