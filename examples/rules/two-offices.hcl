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

# Change these to your own: the tests below follow.
locals {
  here  = ["10.1.0.0/16", "fd00:1::/48"]
  there = ["10.2.0.0/16", "fd00:2::/48"]

  # The addresses of the two gateways outside, this one's and the other's.
  outside = "198.51.100.1"
  peer    = "203.0.113.7"
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
  local_endpoint  = local.outside
  remote_endpoint = local.peer
}

ike "south" {
  remote_endpoint = local.peer
  local_id        = "north.example.org"
  remote_id       = "south.example.org"
  public_keys     = "peers/"
  private_key     = "north.example.org.key"
  initiate        = "start"
}

# For the tests, out of the locals above: the first address of each network there, and
# pairs of addresses of one family, one on this side and one on the other.
locals {
  who = {
    here      = local.here
    there     = local.there
    outside   = local.outside
    peer      = local.peer
    strangers = [for a in ["203.0.113.9", "198.51.100.9", "192.0.2.9", "2001:db8:9::9"] : a if !cidrcontains([local.here, local.there, local.outside, local.peer], a)]
  }
  addresses = { for name, list in local.who : name => [for i, a in flatten([list]) : cidrhost(a, 0) if i < 8] }
  sides = {
    offices   = [local.addresses.here, local.addresses.there]
    abroad    = [local.addresses.strangers, local.addresses.there]
    internet  = [local.addresses.here, local.addresses.strangers]
    gateways  = [local.addresses.outside, local.addresses.peer]
    inside    = [local.addresses.outside, local.addresses.here]
    strangers = [local.addresses.outside, local.addresses.strangers]
  }
  ends = { for name, side in local.sides : name => flatten([
    for a in side[0] : [for b in side[1] : { near = a, far = b } if cidrcontains("::/0", a) == cidrcontains("::/0", b)]
  ]) }
}

test "from office to office through the tunnel, whoever opens" {
  expect "protect" {
    packets = [for e in local.ends.offices : [
      "forward tcp [${e.near}]:40000 -> [${e.far}]:80",
      "forward tcp [${e.far}]:40000 -> [${e.near}]:80",
      "forward tcp [${e.far}]:40000 -> [${e.near}]:80 protected south",
      "forward udp [${e.near}]:40000 -> [${e.far}]:53",
    ]]
    rule = "offices"
  }
  expect "protect" {
    packets = [for e in local.ends.offices : [
      "out tcp [${e.near}]:40000 -> [${e.far}]:443",
      "in tcp [${e.far}]:40000 -> [${e.near}]:22 protected south",
    ]]
    rule = "gateway-to-office"
  }
  expect "discard" {
    packets = [for e in local.ends.abroad : ["out tcp [${e.near}]:40000 -> [${e.far}]:443", "out udp [${e.near}]:40000 -> [${e.far}]:53"]]
    rule    = "office-never-in-the-clear"
  }
}

test "the internet is open from inside" {
  expect "bypass" {
    packets = [for e in local.ends.internet : [
      "forward tcp [${e.near}]:40000 -> [${e.far}]:443",
      "forward tcp [${e.far}]:443 -> [${e.near}]:40000 established",
    ]]
    rule = "internet"
  }
  expect "discard" { packets = [for e in local.ends.internet : "forward tcp [${e.far}]:40000 -> [${e.near}]:22"] }
}

test "the gateway" {
  expect "bypass" {
    packets = [for e in local.ends.inside : "in tcp [${e.far}]:40000 -> [${e.near}]:22"]
    rule    = "ssh"
  }
  expect "bypass" {
    packets = [for e in local.ends.gateways : ["in esp ${e.far} -> ${e.near} spi 0x1001", "out udp [${e.near}]:500 -> [${e.far}]:500"]]
  }
  expect "discard" {
    packets = [for e in local.ends.strangers : ["in tcp [${e.far}]:40000 -> [${e.near}]:22", "in udp [${e.far}]:500 -> [${e.near}]:500"]]
  }
}
