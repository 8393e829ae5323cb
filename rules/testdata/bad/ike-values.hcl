policy {
  inbound  = "discard"
  outbound = "bypass"
}

ike "a" {
  psk_file            = "keys/private.key"
  local_endpoint      = "0.0.0.0"
  remote_endpoint     = ["10.0.0.300", "-bad-.example.org", "2001:db8::/32"]
  remote_id           = []
  pool                = ["10.99.0.0/24", "10.99.0.128/25", "10.99.0.1/24"]
  dns                 = "dns.example.org"
  encryption          = "insecure-null"
  prf                 = "sha256"
  lifetime            = "1s"
  dead_peer_detection = 30
  initiate            = "always"
}

ike "b" {
  psk_file           = "keys/private.key"
  retransmit_timeout = "10ms"
  retransmit_base    = "NaN"
  retransmit_tries   = 0
}

ike "c" {
  psk_file           = "keys/private.key"
  retransmit_timeout = "1m"
  retransmit_base    = 1.1
  retransmit_tries   = 20
}
