# A gateway for people on the road. Each caller proves itself by a key of its
# own, gets an address from the pool and the resolver of the house, and reaches
# the servers inside through a tunnel. Callers do not reach one another.
#
# Here belong /etc/ipfw/vpn.example.org.key, and the public key of each caller as
# /etc/ipfw/users/NAME.pub, where NAME is the identity that it proves. Gateway and
# callers (profile:vpn-client) each make a pair of their own; this prints the public
# half, for the other side:
#
#   ipfw pki key vpn.example.org

policy {
  inbound  = "discard"
  outbound = "bypass"
  forward  = "discard"
}

# Change these to your own, and the addresses in the tests below with them.
locals {
  callers   = ["10.99.0.0/24", "fd99::/64"]
  servers   = ["10.1.0.0/16", "fd00:1::/48"]
  resolvers = ["10.1.0.53"]
}

rule "callers-apart" {
  action         = "discard"
  direction      = "forward"
  local_address  = local.callers
  remote_address = local.callers
  reject         = true
}

# local_address is the network behind this host, remote_address the far side.
rule "callers-to-servers" {
  action         = "protect"
  with           = "callers"
  direction      = "forward"
  opened_by      = "remote"
  local_address  = local.servers
  remote_address = local.callers
}

rule "callers-ping-the-gateway" {
  action         = "protect"
  with           = "callers"
  direction      = "in"
  protocol       = ["icmp", "icmpv6"]
  icmp_type      = "echo-request"
  remote_address = local.callers
}

# What this host would open to a caller by itself has no tunnel to go through.
rule "callers-never-in-the-clear" {
  action         = "discard"
  direction      = "out"
  remote_address = local.callers
  reject         = true
}

rule "ssh" {
  action         = "bypass"
  direction      = "in"
  protocol       = "tcp"
  remote_address = local.servers
  local_port     = 22
}

ipsec "callers" {
  mode     = "tunnel"
  protocol = "esp"
  ike      = "remote-users"
}

ike "remote-users" {
  pool        = local.callers
  dns         = local.resolvers
  local_id    = "vpn.example.org"
  public_keys = "users/"
  private_key = "vpn.example.org.key"
}

test "callers reach the servers through the tunnel" {
  expect "protect" {
    packets = [
      "forward tcp 10.99.0.7:40000 -> 10.1.0.9:443",
      "forward tcp 10.99.0.7:40000 -> 10.1.0.9:443 protected callers",
      "forward udp [fd99::7]:40000 -> [fd00:1::53]:53",
    ]
    rule = "callers-to-servers"
  }
  expect "protect" {
    packet = "in icmp echo-request 10.99.0.7 -> 10.99.0.1"
    rule   = "callers-ping-the-gateway"
  }
}

test "and nothing else" {
  expect "discard" {
    packets = ["forward tcp 10.99.0.7:40000 -> 10.99.0.8:445", "forward udp [fd99::7]:40000 -> [fd99::8]:5353"]
    rule    = "callers-apart"
  }
  expect "discard" {
    packets = ["out tcp 10.1.0.1:40000 -> 10.99.0.7:22", "out udp [fd00:1::1]:40000 -> [fd99::7]:53"]
    rule    = "callers-never-in-the-clear"
  }
  expect "discard" {
    packets = [
      "forward tcp 10.1.0.9:40000 -> 10.99.0.7:22",
      "forward tcp 10.99.0.7:40000 -> 203.0.113.9:443",
      "forward tcp 203.0.113.9:40000 -> 10.1.0.9:443",
    ]
  }
}

test "anybody may knock, but only the servers' network gets a shell" {
  expect "bypass" {
    packets = [
      "in udp 203.0.113.9:500 -> 198.51.100.1:500",
      "in udp 203.0.113.9:61000 -> 198.51.100.1:4500",
      "in esp 203.0.113.9 -> 198.51.100.1 spi 0x1001",
    ]
  }
  expect "bypass" {
    packet = "in tcp 10.1.0.9:40000 -> 10.1.0.1:22"
    rule   = "ssh"
  }
  expect "discard" { packets = ["in tcp 203.0.113.9:40000 -> 198.51.100.1:22", "in tcp 10.99.0.7:40000 -> 10.1.0.1:22"] }
}
