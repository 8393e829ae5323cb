# Gateway right. Tunnels that protect nothing by themselves, VXLAN, GRE and IP-in-IP,
# run between the gateways under ESP in transport mode. What is inside of them
# is clear here, and nowhere else: it may use the tunnels' interfaces only.
#
# Give the tunnels an MTU of 1380 and nothing need be fragmented.

policy {
  inbound  = "discard"
  outbound = "discard"
  forward  = "discard"
}

locals {
  here  = "10.2.0.0/16"
  there = "10.1.0.0/16"
  peer  = "198.51.100.1"
  inner = ["vxlan*", "gre*", "ipip*"] # the tunnels' interfaces
}

# VXLAN answers from a port of its own, so each side opens flows.
rule "vxlan-out" {
  action         = "protect"
  with           = "left"
  direction      = "out"
  protocol       = "udp"
  remote_address = local.peer
  remote_port    = 4789
}

rule "vxlan-in" {
  action         = "protect"
  with           = "left"
  direction      = "in"
  protocol       = "udp"
  remote_address = local.peer
  local_port     = 4789
}

rule "gre-and-ip-in-ip" {
  action         = "protect"
  with           = "left"
  direction      = "both"
  protocol       = ["gre", "ipv4"]
  remote_address = local.peer
}

rule "inside" {
  action    = "bypass"
  direction = "both"
  interface = local.inner
}

rule "offices" {
  action         = "bypass"
  direction      = "forward"
  interface      = local.inner
  local_address  = local.here
  remote_address = local.there
}

ipsec "left" {
  mode            = "transport"
  local_endpoint  = "198.51.100.2"
  remote_endpoint = "198.51.100.1"
  encapsulation   = "none"
  manual {
    spi_in     = "0x1002"
    spi_out    = "0x1001"
    encryption = "aes-256-cbc"
    integrity  = "hmac-sha2-256-128"
    key_file   = "left.keys"
  }
}

test "tunnels under ESP, and not without" {
  expect "protect" {
    packets = [
      "out udp 198.51.100.2:50000 -> 198.51.100.1:4789",
      "in udp 198.51.100.1:50000 -> 198.51.100.2:4789 protected left",
      "out gre 198.51.100.2 -> 198.51.100.1",
      "in ipv4 198.51.100.1 -> 198.51.100.2 protected left",
    ]
  }
  expect "discard" {
    packets = [
      "out tcp 198.51.100.2:40000 -> 198.51.100.1:22",
      "forward tcp 10.2.0.5:40000 -> 10.1.0.9:80 on eth0",
    ]
  }
  expect "bypass" { packet = "forward tcp 10.2.0.5:40000 -> 10.1.0.9:80 on vxlan0" }
}
