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

# Change these to your own, and the addresses in the tests below with them.
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

test "files go protected" {
  expect "protect" {
    packets = [
      "in tcp 10.0.0.7:50000 -> 10.0.0.2:445",
      "in tcp [fd00:10::7]:50000 -> [fd00:10::2]:445",
      "in tcp 10.0.0.7:50000 -> 10.0.0.2:445 protected lan",
    ]
    rule = "smb"
  }
  expect "protect" {
    packets = ["in tcp 10.0.0.7:900 -> 10.0.0.2:2049", "in tcp [fd00:10::7]:900 -> [fd00:10::2]:2049 protected lan"]
    rule    = "nfs"
  }
}

test "the key exchange and what it seals come through, from the LAN only" {
  expect "bypass" {
    packets = [
      "in udp 10.0.0.7:500 -> 10.0.0.2:500",
      "out udp 10.0.0.2:4500 -> 10.0.0.7:4500",
      "in esp 10.0.0.7 -> 10.0.0.2 spi 0x1001",
    ]
  }
  expect "discard" { packets = ["in udp 203.0.113.9:500 -> 10.0.0.2:500", "in esp 203.0.113.9 -> 10.0.0.2 spi 0x1001"] }
}

test "nobody else gets at the files" {
  expect "bypass" {
    packet = "in tcp 10.0.0.5:50000 -> 10.0.0.2:22"
    rule   = "ssh"
  }
  expect "discard" {
    packets = [
      "in tcp 203.0.113.9:50000 -> 10.0.0.2:445",
      "in tcp 10.0.1.7:50000 -> 10.0.0.2:2049",
      "in tcp 10.0.0.7:50000 -> 10.0.0.2:22",
      "in tcp 10.0.0.7:50000 -> 10.0.0.2:139",
    ]
  }
}
