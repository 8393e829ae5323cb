policy { inbound = "discard", outbound = "bypass", essentials = false }
rule "a" { action = "bypass", direction = "in", protocol = ["tcp", "udp"], local_port = 53 }
test "t" {
  expect "bypass" { packet = "in udp 192.0.2.1:5 -> 192.0.2.2:53", rule = "a" }
}
