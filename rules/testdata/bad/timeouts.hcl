policy {
  inbound  = "discard"
  outbound = "bypass"
  timeouts {
    tcp_established = "0s"
    tcp_half_close  = "1m"
    udp             = 30
    icmp            = "31d"
  }
}
