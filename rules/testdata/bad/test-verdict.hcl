policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "web" {
  action    = "bypass"
  direction = "in"
}

test "t" {
  expect "alow" {
    packet = "in tcp 203.0.113.9:1 -> 198.51.100.10:443"
  }
  expect {
    packet = "in tcp 203.0.113.9:1 -> 198.51.100.10:443"
  }
}
