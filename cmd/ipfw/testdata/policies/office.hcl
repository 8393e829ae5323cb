# A host in an office.
policy {
  inbound  = "discard"
  outbound = "bypass"
}

locals {
  admins = ["192.0.2.0/25", "2001:db8:5::/48"]
}

rule "ssh" {
  action         = "bypass"
  direction      = "in"
  protocol       = "tcp"
  remote_address = local.admins
  local_port     = 22
}

rule "web" {
  description = "the shop"
  action      = "bypass"
  direction   = "in"
  protocol    = "tcp"
  local_port  = [80, 443]
}

rule "no-telnet" {
  action      = "discard"
  direction   = "out"
  protocol    = "tcp"
  remote_port = 23
  reject      = true
}

rule "files" {
  action         = "protect"
  with           = "lan"
  direction      = "both"
  remote_address = "10.0.0.0/24"
  protocol       = "tcp"
  local_port     = 445
}

rule "transit" {
  action         = "bypass"
  direction      = "forward"
  opened_by      = "local"
  local_address  = "10.1.0.0/16"
}

ipsec "lan" {
  mode     = "transport"
  protocol = "esp"
  ike      = "peers"
}

ike "peers" {
  remote_endpoint = "10.0.0.0/24"
  local_id        = "files.example.org"
  psk_file        = "peers.psk"
}

test "the web is open, the database is not" {
  expect "bypass" { packet = "in tcp 203.0.113.9:40000 -> 198.51.100.10:443" }
  expect "discard" { packet = "in tcp 203.0.113.9:40000 -> 198.51.100.10:5432" }
  expect "protect" {
    packet = "in tcp 10.0.0.7:50000 -> 10.0.0.5:445"
    rule   = "files"
  }
}
