policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "half-seen" {
  action    = "bypass"
  direction = "forward"
  half_open = "bypass"
}

test "answers pass without a question" {
  expect "bypass" { packet = "forward tcp 10.2.0.10:80 -> 10.1.0.10:40000 syn,ack" }
  expect "discard" { packet = "in tcp 10.2.0.10:80 -> 10.1.0.10:40000 syn,ack" }
}
