package ike

import (
	"net/netip"
	"testing"
	"time"
)

// A child that the peer refuses is asked for again later, and the peer is asked
// whether it lives in the meantime.
func TestProbeWhileAChildWaits(t *testing.T) {
	s := newSim(t, 7)
	pa, pb := pskPeers()
	pa.Children[0].Start, pa.Childless = true, true
	pa.Children[0].RemoteTS = []TrafficSelector{SelectorOf(netip.MustParsePrefix("10.1.0.0/16"))}
	a, b := s.twoNodes(pa, pb)
	s.call(a, "b", "net")
	s.run(time.Second)
	end := s.now.Add(10 * time.Minute)
	for steps := 0; s.step(end); steps++ {
		if steps > 2000 {
			t.Fatal("the cores do not come to rest")
		}
	}
	if n, _ := a.Holds("b"); n != 1 || a.failure() != NoSelectors {
		t.Errorf("%d IKE SAs, failure %s", n, a.failure())
	}
	s.nodes = []*node{a} // the other goes silent
	s.run(5 * time.Minute)
	if n, _ := a.Holds("b"); n != 0 || b == nil {
		t.Errorf("%d IKE SAs with a peer that is silent", n)
	}
}
