# The gateway of office north. What goes between the offices goes through one
# tunnel, IPv4 and IPv6; hosts here reach the internet in the clear, and it does
# not reach them.

policy {
  inbound  = "discard"
  outbound = "bypass"
  forward  = "discard"
}

locals {
  here  = ["10.1.0.0/16", "fd00:1::/48"]
  there = ["10.2.0.0/16", "fd00:2::/48"]
}

rule "offices" {
  action         = "protect"
  with           = "south"
  direction      = "forward"
  local_address  = local.here
  remote_address = local.there
}

# The gateway itself talks to the other office through the tunnel too.
rule "gateway" {
  action         = "protect"
  with           = "south"
  direction      = "both"
  local_address  = local.here
  remote_address = local.there
}

rule "internet" {
  action        = "bypass"
  direction     = "forward"
  opened_by     = "local"
  local_address = local.here
}

ipsec "south" {
  mode            = "tunnel"
  local_endpoint  = "198.51.100.1"
  remote_endpoint = "203.0.113.7"
  manual {
    spi_in     = "0x1001"
    spi_out    = "0x1002"
    encryption = "aes-256-cbc"
    integrity  = "hmac-sha2-256-128"
    key_file   = "south.keys"
  }
}

test "between the offices through the tunnel, whoever opens" {
  expect "protect" {
    packets = [
      "forward tcp 10.1.0.5:40000 -> 10.2.0.9:80",
      "forward tcp 10.2.0.9:40000 -> 10.1.0.5:80 protected south",
      "out tcp 10.1.0.1:40000 -> 10.2.0.9:80",
    ]
  }
  expect "discard" { packet = "forward tcp 203.0.113.80:40000 -> 10.1.0.5:22" }
  expect "bypass" { packet = "forward tcp 10.1.0.5:40000 -> 203.0.113.80:443" }
}
