package ike

import (
	"net/netip"
	"testing"
	"time"
)

// The groups that cost much are for who names them, and even then for nobody
// that has not sent a cookie back.
func TestCostlyGroups(t *testing.T) {
	for _, name := range []string{"x25519", "p-256", "p-384", "p-521", "modp-2048", "modp-3072", "modp-4096"} {
		group, _ := TransformNamed(TransformKE, name)
		dear := name == "p-521" || group.ID >= KEMODP2048 && group.ID <= KEMODP4096
		for _, named := range []bool{false, true} {
			s := newSim(t, 3)
			pa, pb := pskPeers()
			pa.Proposals = []Proposal{ikeProp(tGCM128, tPRF, group)}
			if pb.Endpoint = (netip.AddrPort{}); named {
				pb.Proposals = pa.Proposals
			}
			a, b := s.twoNodes(pa, pb)
			s.call(a, "b", "net")
			s.run(5 * time.Second)
			up := len(s.pairs(a, b, "net")) == 1
			if up != (named || !dear) {
				t.Errorf("%s, named: %v: up: %v", name, named, up)
			}
			if cookies := b.Stats().Cookies; cookies != uint64(btoi(named && dear)) {
				t.Errorf("%s, named: %v: %d cookies", name, named, cookies)
			}
			if !up && (b.failure() != NoProposal || b.guard.total != 0) {
				t.Errorf("%s: failure %s, %d half-open", name, b.failure(), b.guard.total)
			}
		}
	}
}

// A peer whose first choice is another group is told ours, with and without a
// cookie on the way.
func TestCostlyGroupFirst(t *testing.T) {
	modp, _ := TransformNamed(TransformKE, "modp-2048")
	for _, named := range []bool{false, true} {
		s := newSim(t, 3)
		pa, pb := pskPeers()
		pa.Proposals = []Proposal{ikeProp(tGCM128, tPRF, modp, tX25519)}
		pb.Endpoint = netip.AddrPort{}
		if named {
			pb.Proposals = []Proposal{ikeProp(tGCM128, tPRF, modp)}
		}
		a, b := s.twoNodes(pa, pb)
		s.call(a, "b", "net")
		s.run(5 * time.Second)
		if len(s.pairs(a, b, "net")) != 1 {
			s.dump()
			t.Errorf("named: %v: not up", named)
		}
	}
}
