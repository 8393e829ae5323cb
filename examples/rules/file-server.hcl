# A file server: SMB and NFS for the LAN, sealed by IPsec and never in the
# clear. Each client runs ipfw, or any other IKEv2, with a key of its own.
#
# Before it is put to use: the server's key goes to /etc/ipfw/files.example.org.key,
# the public key of each client to /etc/ipfw/peers/NAME.pub, where NAME is the
# identity that it proves. This makes the server's pair there, and prints the public
# half, for the clients' folders; profile:file-client is their policy.
#
#   ipfw pki key files.example.org

policy {
  inbound  = "discard"
  outbound = "bypass"
}

# Change these to your own: the tests below follow.
locals {
  lan    = ["10.0.0.0/24", "fd00:10::/64"]
  admins = ["10.0.0.5", "fd00:10::5"]
}

rule "smb" {
  action         = "protect"
  with           = "lan" # the ipsec block below; in the clear it is discarded
  direction      = "in"
  protocol       = "tcp"
  remote_address = local.lan
  local_port     = 445
}

rule "nfs" {
  action         = "protect"
  with           = "lan"
  direction      = "in"
  protocol       = "tcp" # NFS version 4 needs one port and no port mapper
  remote_address = local.lan
  local_port     = 2049
}

rule "ssh" {
  action         = "bypass" # ssh seals for itself
  direction      = "in"
  protocol       = "tcp"
  remote_address = local.admins
  local_port     = 22
}

ipsec "lan" {
  mode     = "transport" # from host to host
  protocol = "esp"
  ike      = "clients"
}

ike "clients" {
  remote_endpoint = local.lan
  local_id        = "files.example.org"
  public_keys     = "peers/"
  private_key     = "files.example.org.key"
}

# For the tests, out of the locals above: the first address of each network there, and
# beside it one of this host that is of the same family.
locals {
  who = {
    lan       = local.lan
    admins    = local.admins
    strangers = [for a in ["203.0.113.9", "198.51.100.9", "192.0.2.9", "2001:db8:9::9"] : a if !cidrcontains([local.lan, local.admins], a)]
  }
  addresses = { for name, list in local.who : name => [for i, a in flatten([list]) : cidrhost(a, 0) if i < 8] }
  ends = { for name, list in local.addresses : name => [
    for a in list : { peer = a, host = cidrcontains("::/0", a) ? "fd00:10::2" : "10.0.0.2" }
  ] }
}

test "files go protected" {
  expect "protect" {
    packets = [for e in local.ends.lan : [
      "in tcp [${e.peer}]:50000 -> [${e.host}]:445",
      "in tcp [${e.peer}]:50000 -> [${e.host}]:445 protected lan",
    ]]
    rule = "smb"
  }
  expect "protect" {
    packets = [for e in local.ends.lan : [
      "in tcp [${e.peer}]:900 -> [${e.host}]:2049",
      "in tcp [${e.peer}]:900 -> [${e.host}]:2049 protected lan",
    ]]
    rule = "nfs"
  }
}

test "the key exchange and what it seals come through, from the LAN only" {
  expect "bypass" {
    packets = [for e in local.ends.lan : [
      "in udp [${e.peer}]:500 -> [${e.host}]:500",
      "out udp [${e.host}]:4500 -> [${e.peer}]:4500",
      "in esp ${e.peer} -> ${e.host} spi 0x1001",
    ]]
  }
  expect "discard" {
    packets = [for e in local.ends.strangers : ["in udp [${e.peer}]:500 -> [${e.host}]:500", "in esp ${e.peer} -> ${e.host} spi 0x1001"]]
  }
}

test "nobody else gets at the files" {
  expect "bypass" {
    packets = [for e in local.ends.admins : "in tcp [${e.peer}]:50000 -> [${e.host}]:22"]
    rule    = "ssh"
  }
  expect "discard" {
    packets = [for e in local.ends.strangers : ["in tcp [${e.peer}]:50000 -> [${e.host}]:445", "in tcp [${e.peer}]:50000 -> [${e.host}]:2049"]]
  }
  expect "discard" { packets = [for e in local.ends.lan : "in tcp [${e.peer}]:50000 -> [${e.host}]:139"] }
  expect "discard" {
    packets = [for e in local.ends.lan : "in tcp [${e.peer}]:50000 -> [${e.host}]:22" if !cidrcontains(local.admins, e.peer)]
  }
}
