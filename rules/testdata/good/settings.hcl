policy {
  inbound    = "bypass"
  outbound   = "discard"
  forward    = "bypass"
  essentials = false
  on_failure = "open"
  offload    = "none"
  queue      = 7
  queues     = 4
  mark_mask  = "0x00ff0000"
  log_rate   = 0
  log = "all"
  half_open  = "bypass"
  timeouts {
    tcp_established = "36h"
    tcp_half_closed = "10m"
    udp             = "90s"
  }
}

rule "whole" {
  action    = "bypass"
  direction = "forward"
  protocol  = "icmp"
  half_open = "discard"
}

rule "half-seen" {
  action    = "bypass"
  direction = "forward"
}
