policy {
  inbound  = "discard"
  outbound = "bypass"
}

rule "not-him" {
  action         = "discard"
  direction      = "in"
  remote_address = "192.168.1.66"
}

rule "answers" {
  action            = "bypass"
  direction         = "in"
  protocol          = "udp"
  interface         = "wlan*"
  answers_multicast = "6s"
  log               = true
}

rule "names" {
  action            = "bypass"
  direction         = "in"
  protocol          = "udp"
  remote_port       = ["5355", "netbios-ns"]
  answers_multicast = "1m"
}

test "what was asked is answered" {
  expect "bypass" {
    packets = [
      "in udp 192.168.1.9:1900 -> 192.168.1.7:50000 answer on wlan0",
      "in udp [fe80::9]:40000 -> [fe80::7]:50000 on wlan0 answer",
    ]
    rule = "answers"
  }
  expect "bypass" {
    packet = "in udp 192.168.1.9:5355 -> 192.168.1.7:50000 answer on eth0"
    rule   = "names"
  }
  expect "discard" {
    packets = [
      "in udp 192.168.1.9:1900 -> 192.168.1.7:50000 on wlan0",
      "in udp 192.168.1.9:1900 -> 192.168.1.7:50000 established on wlan0",
      "in udp 192.168.1.9:1900 -> 192.168.1.7:50000 answer on eth0",
      "in udp 192.168.1.66:1900 -> 192.168.1.7:50000 answer on wlan0",
      "in udp 192.168.1.9:5355 -> 224.0.0.252:5355 answer on wlan0",
    ]
  }
}
