policy {
  inbound  = "discard"
  outbound = "bypass"
}
rule "no-time" {
  action            = "bypass"
  direction         = "in"
  protocol          = "udp"
  answers_multicast = true
}
rule "too-long" {
  action            = "bypass"
  direction         = "in"
  protocol          = "udp"
  answers_multicast = "2m"
}
rule "discards" {
  action            = "discard"
  direction         = "in"
  protocol          = "udp"
  answers_multicast = "5s"
}
rule "asks" {
  action            = "bypass"
  direction         = "out"
  protocol          = "udp"
  answers_multicast = "5s"
}
rule "both" {
  action            = "bypass"
  direction         = "both"
  protocol          = "udp"
  answers_multicast = "5s"
}
rule "tcp-too" {
  action            = "bypass"
  direction         = "in"
  protocol          = ["udp", "tcp"]
  answers_multicast = "5s"
}
rule "any-protocol" {
  action            = "bypass"
  direction         = "in"
  answers_multicast = "5s"
}
rule "name" {
  action           = "bypass"
  direction        = "in"
  protocol         = "udp"
  answer_multicast = "5s"
}
test "words" {
  expect "discard" { packet = "in tcp 192.168.1.9:1900 -> 192.168.1.7:50000 answer" }
  expect "discard" { packet = "out udp 192.168.1.9:1900 -> 192.168.1.7:50000 answer" }
  expect "discard" { packet = "in udp 192.168.1.9:1900 -> 192.168.1.7:50000 answers" }
}
