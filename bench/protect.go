package main

import (
	"fmt"

	"github.com/ipfw/ipfw/e2e/lab"
)

// upProtect runs the daemon on both hosts, protecting all that runs between
// them, with keys that they agree on by IKE.
func upProtect(s *site, encryption, encapsulation string) {
	s.lab.RawKeys(false, "client", "server")
	run := func(on *lab.Host, self, selfAddr, peer, peerAddr string) *lab.Daemon {
		return s.daemonOn(on, s.lab.File(self+"/policy.hcl", fmt.Sprintf(`
policy {
  inbound  = "discard"
  outbound = "discard"
}
rule "all" {
  action         = "protect"
  with           = "peer"
  direction      = "both"
  remote_address = %[4]q
}
ipsec "peer" {
  mode          = "transport"
  ike           = %[3]q
  encryption    = [%[5]q]
  encapsulation = %[6]q
}
ike %[3]q {
  remote_endpoint = %[4]q
  local_endpoint  = %[2]q
  local_id        = %[1]q
  public_keys     = "peers/"
  private_key     = "own.key"
}
`, self, selfAddr, peer, peerAddr, encryption, encapsulation)))
	}
	const clientAddr, serverAddr = "10.77.0.2", "10.77.0.1"
	run(s.client, "client", clientAddr, "server", serverAddr)
	s.daemon = run(s.server, "server", serverAddr, "client", clientAddr)
}
