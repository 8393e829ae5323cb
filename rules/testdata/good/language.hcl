policy {                        # required: say what happens to traffic that no rule names
  inbound  = "discard"
  outbound = "bypass"
  forward  = "discard"          # default
}

locals {
  admins = ["192.0.2.0/25", "2001:db8:5::/48"]
}

rule "ssh" {
  action         = "bypass"     # bypass | discard | protect
  direction      = "in"         # in | out | both | forward: the side that opens the flow
  protocol       = "tcp"        # IANA name or number, or a list; default any
  remote_address = local.admins # address, CIDR, range "a-b", or a list; default any; IPv4 and IPv6 mix freely
  local_port     = 22           # number, "8000-8099", IANA service name, or a list
  log            = true
}

rule "web" {
  action     = "bypass"
  direction  = "in"
  protocol   = ["tcp"]
  local_port = [80, 443]
}

rule "no-telnet" {
  action      = "discard"
  direction   = "out"
  protocol    = "tcp"
  remote_port = 23
  reject      = true            # answer with TCP reset or ICMP unreachable instead of silence
}

rule "limited" {
  action = "bypass"
  direction = "in"
  protocol = "icmp"
  icmp_type = "echo-request"
  limit { rate = "10/minute", burst = 20, per = "remote_address" }
}

rule "all of them" {
  description    = "every selector, \"quoted\" and $${escaped}"
  action         = "discard"
  direction      = "both"
  protocol       = ["tcp", "udp", 132]
  local_address  = ["198.51.100.1", "2001:db8::1"]
  remote_address = ["203.0.113.5-203.0.113.9", "2001:db8:9::/64", "203.0.113.128-203.0.113.255"]
  local_port     = ["8000-8099", "https"]
  remote_port    = 1024
  interface      = ["eth0", "wg*"]
  dscp           = ["cs1", 46, "af21", 3]
  audit          = true
}

rule "off" {
  enabled   = false
  action    = "bypass"
  direction = "in"
}

rule "routed" {
  action         = "bypass"
  direction      = "forward"
  opened_by      = "local"
  protocol       = ["icmp", "icmpv6"]
  icmp_type      = ["echo-request", "packet-too-big", "destination-unreachable/3"]
  local_address  = ["10.1.0.0/16", "2001:db8:1::/48"]
}

rule "smb-for-the-lan" {
  action         = "protect"
  with           = "lan"        # an ipsec block; cleartext that matches this rule is discarded
  direction      = "both"
  remote_address = "10.0.0.0/24"
  protocol       = "tcp"
  local_port     = 445
}

ipsec "lan" {
  mode     = "transport"        # transport | tunnel
  protocol = "esp"              # esp | ah
  ike      = "lan-peers"        # keys come from IKEv2
}

ike "lan-peers" {
  remote_endpoint = "10.0.0.0/24"         # an address, a DNS name, or the range that may call in; default any
  local_id        = "files.example.org"
  remote_id       = "*.example.org"
  certificate     = "keys/public.pem"
  private_key     = "keys/private.key"
  ca              = "keys/public.pem"
}

test "the web is open, the database is not" {
  expect "bypass"  { packet = "in tcp 203.0.113.9:40000 -> 198.51.100.10:443" }
  expect "discard" { packet = "in tcp 203.0.113.9:40000 -> 198.51.100.10:5432" }
  expect "protect" {
    packet = "in tcp 10.0.0.7:50000 -> 10.0.0.5:445"
    rule   = "smb-for-the-lan"
  }
}
