# The gateway of one of two offices. What goes from office to office goes
# through a tunnel, whoever opens it; the rest of the internet is open to the
# hosts of this office, and they are not to it.
#
# The gateway of the other office has the same policy with the two sides
# changed. Here belong /etc/ipfw/north.example.org.key, and the other's public key
# as /etc/ipfw/peers/south.example.org.pub. Each gateway makes its own pair, and
# gives the other the public half, which this prints:
#
#   ipfw pki key north.example.org

policy {
  inbound  = "discard"
  outbound = "bypass"
  forward  = "discard"
}

# Change these to your own, and the addresses in the tests below with them.
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

# The gateway itself talks to the other office through the tunnel too, by its
# address in here (ping -I, or a route with "src"). By its address outside, which
# Linux takes by itself, it does not, and never in the clear.
rule "gateway-to-office" {
  action         = "protect"
  with           = "south"
  direction      = "both"
  local_address  = local.here
  remote_address = local.there
}

rule "office-never-in-the-clear" {
  action         = "discard"
  direction      = "out"
  remote_address = local.there
  reject         = true
}

rule "internet" {
  action        = "bypass"
  direction     = "forward"
  opened_by     = "local"
  local_address = local.here
}

rule "ssh" {
  action         = "bypass"
  direction      = "in"
  protocol       = "tcp"
  remote_address = local.here
  local_port     = 22
}

ipsec "south" {
  mode            = "tunnel"
  protocol        = "esp"
  ike             = "south"
  local_endpoint  = "198.51.100.1"
  remote_endpoint = "203.0.113.7"
}

ike "south" {
  remote_endpoint = "203.0.113.7"
  local_id        = "north.example.org"
  remote_id       = "south.example.org"
  public_keys     = "peers/"
  private_key     = "north.example.org.key"
  initiate        = "start"
}

test "from office to office through the tunnel, whoever opens" {
  expect "protect" {
    packets = [
      "forward tcp 10.1.0.5:40000 -> 10.2.0.9:80",
      "forward tcp 10.2.0.9:40000 -> 10.1.0.5:80",
      "forward tcp 10.2.0.9:40000 -> 10.1.0.5:80 protected south",
      "forward udp [fd00:1::5]:40000 -> [fd00:2::9]:53",
      "forward icmp echo-request 10.1.0.5 -> 10.2.0.9",
    ]
    rule = "offices"
  }
  expect "protect" {
    packets = ["out tcp 10.1.0.1:40000 -> 10.2.0.9:443", "in icmp echo-request 10.2.0.9 -> 10.1.0.1 protected south"]
    rule    = "gateway-to-office"
  }
  expect "discard" {
    packets = ["out tcp 198.51.100.1:40000 -> 10.2.0.9:443", "out udp [2001:db8::1]:40000 -> [fd00:2::9]:53"]
    rule    = "office-never-in-the-clear"
  }
}

test "the internet is open from inside" {
  expect "bypass" {
    packets = ["forward tcp 10.1.0.5:40000 -> 203.0.113.80:443", "forward tcp 203.0.113.80:443 -> 10.1.0.5:40000 established"]
    rule    = "internet"
  }
  expect "discard" { packet = "forward tcp 203.0.113.80:40000 -> 10.1.0.5:22" }
}

test "the gateway" {
  expect "bypass" {
    packet = "in tcp 10.1.0.5:40000 -> 10.1.0.1:22"
    rule   = "ssh"
  }
  expect "bypass" { packets = ["in esp 203.0.113.7 -> 198.51.100.1 spi 0x1001", "out udp 198.51.100.1:500 -> 203.0.113.7:500"] }
  expect "discard" { packets = ["in tcp 203.0.113.80:40000 -> 198.51.100.1:22", "in udp 203.0.113.80:500 -> 198.51.100.1:500"] }
}
