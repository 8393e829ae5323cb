policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "db" {
  action     = "bypass"
  direction  = "in"
  protocol   = "tcp"
  local_port = 5432
}

rule "db-again" {
  action     = "bypass"
  direction  = "in"
  protocol   = "tcp"
  local_port = 5432
}

test "what is shut" {
  expect "discard" { packet = "in tcp 203.0.113.9:40000 -> 198.51.100.10:5432" }
  expect "bypass" { packet = "in tcp 203.0.113.9:40000 -> 198.51.100.10:443" }
  expect "discard" { packet = "in udp 203.0.113.9:40000 -> 198.51.100.10:53" }
  expect "bypass" {
    packet = "in tcp 203.0.113.9:40000 -> 198.51.100.10:5432"
    rule   = "db-again"
  }
}
