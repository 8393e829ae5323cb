# A caller of the gateway of profile:vpn-gateway, on the road: it gets an address
# there, and reaches the servers behind it through a tunnel. Else it opens what it
# likes, and nobody opens anything to it.
#
# Here belong /etc/ipfw/ann@example.org.key, and the gateway's public key as
# /etc/ipfw/peers/vpn.example.org.pub. Each makes a pair of its own; this prints the
# public half, for the gateway's folder users/:
#
#   ipfw pki key ann@example.org

policy {
  inbound  = "discard"
  outbound = "bypass"
}

# Change these to your own, and the addresses in the tests below with them.
locals {
  gateway = "198.51.100.1"
  servers = ["10.1.0.0/16", "fd00:1::/48"]
}

rule "servers" {
  action         = "protect"
  with           = "gateway"
  direction      = "out"
  remote_address = local.servers
}

ipsec "gateway" {
  mode     = "tunnel"
  protocol = "esp"
  ike      = "gateway"
}

ike "gateway" {
  remote_endpoint = local.gateway
  local_id        = "ann@example.org"
  remote_id       = "vpn.example.org"
  public_keys     = "peers/"
  private_key     = "ann@example.org.key"
  request_address = true
}

test "the servers are reached through the tunnel, and never in the clear" {
  expect "protect" {
    packets = ["out tcp 10.99.0.7:40000 -> 10.1.0.9:443", "out udp [fd99::7]:40000 -> [fd00:1::53]:53", "out tcp 192.168.1.7:40000 -> 10.1.0.9:443"]
    rule    = "servers"
  }
}

test "the gateway is heard, and nobody else" {
  expect "bypass" {
    packets = [
      "out udp 192.168.1.7:500 -> 198.51.100.1:500",
      "in udp 198.51.100.1:4500 -> 192.168.1.7:4500",
      "in esp 198.51.100.1 -> 192.168.1.7 spi 0x1001",
    ]
  }
  expect "discard" { packets = ["in udp 203.0.113.9:4500 -> 192.168.1.7:4500", "in tcp 10.1.0.9:40000 -> 10.99.0.7:22"] }
}

test "everything else goes on as before" {
  expect "bypass" { packet = "out tcp 192.168.1.7:40000 -> 203.0.113.9:443" }
  expect "discard" { packet = "in tcp 203.0.113.9:40000 -> 192.168.1.7:22" }
}
