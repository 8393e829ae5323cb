policy {
  inbound  = "discard"
  outbound = "discard"
}

rule "tftp-client" {
  action      = "bypass"
  direction   = "out"
  protocol    = "udp"
  remote_port = 69
}

rule "tftp-data" {
  action     = "bypass"
  direction  = "in"
  protocol   = "udp"
  local_port = "1024-65535"
  related_to = "tftp-client"
}

# What the rule before does not take, this one may.
rule "stream" {
  action     = "bypass"
  direction  = "in"
  protocol   = "udp"
  local_port = 5000
}

# H.323: Q.931 is expected of RAS, H.245 of Q.931, the media of H.245.
rule "h323 calls" {
  action     = "bypass"
  direction  = "both"
  protocol   = ["tcp", "udp"]
  related_to = ["h323 ras", "h323 calls"]
}

rule "h323 ras" {
  action      = "bypass"
  direction   = "out"
  protocol    = "udp"
  remote_port = 1719
}

test "data comes where it is expected" {
  expect "bypass" {
    packet = "in udp 192.0.2.1:40000 -> 192.0.2.2:3000 related tftp-client"
    rule   = "tftp-data"
  }
  expect "bypass" {
    packets = ["out tcp 192.0.2.2:3000 -> 192.0.2.1:40000 related h323 ras", "in udp 192.0.2.1:40000 -> 192.0.2.2:3000 related h323 calls on eth0", "out udp 192.0.2.2:3000 -> 192.0.2.1:40000 established related tftp-client"]
  }
  expect "bypass" {
    packet = "in udp 192.0.2.1:40000 -> 192.0.2.2:5000"
    rule   = "stream"
  }
  expect "discard" {
    packets = ["in udp 192.0.2.1:40000 -> 192.0.2.2:3000", "in udp 192.0.2.1:40000 -> 192.0.2.2:300 related tftp-client", "in tcp 192.0.2.1:40000 -> 192.0.2.2:3000 related tftp-client"]
  }
}
