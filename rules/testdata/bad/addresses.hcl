policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "r" {
  action    = "bypass"
  direction = "in"
  remote_address = ["10.0.0.1/24", "10.0.0.0/33", "10.0.0", "192.0.2.9-192.0.2.1", "192.0.2.1-2001:db8::1", "fe80::1%eth0", "::ffff:192.0.2.1", "www.example.org", 10]
  local_address  = { a = 1 }
}
