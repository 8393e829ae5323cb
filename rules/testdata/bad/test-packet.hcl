policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "web" {
  action    = "bypass"
  direction = "in"
}

test "t" {
  expect "bypass" {
    packet = "in tcp 203.0.113.9 -> 198.51.100.10"
  }
  expect "bypass" {
    packets = ["sideways tcp 203.0.113.9:1 -> 198.51.100.10:443", "in tcp 203.0.113.9:1 -> [2001:db8::1]:443", 7]
  }
}
