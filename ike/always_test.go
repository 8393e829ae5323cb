package ike

import (
	"net/netip"
	"testing"
	"time"
)

// elsewhere has a node take no child, as if its policy were about other networks.
func (n *node) elsewhere(yes bool) {
	for _, p := range n.cfg.Peers {
		for _, ch := range p.Children {
			ch.RemoteTS, ch.LocalTS = nil, nil
			if yes {
				ch.LocalTS = []TrafficSelector{SelectorOf(netip.MustParsePrefix("198.51.100.0/24"))}
				ch.RemoteTS = ch.LocalTS
			}
		}
	}
}

// until lets time pass until something is so.
func (s *sim) until(what string, d time.Duration, ok func() bool) (took time.Duration) {
	s.t.Helper()
	from := s.now
	for !ok() {
		if !s.step(from.Add(d)) {
			s.dump()
			s.t.Fatalf("not within %s: %s", d, what)
		}
	}
	return s.now.Sub(from)
}

// A child with Start that the peer refuses in its first answer is asked for again
// over the same IKE SA, at growing distances up to a minute, until it is there.
func TestStartAfterRefusal(t *testing.T) {
	s := newSim(t, 5)
	pa, pb := pskPeers()
	pa.Children[0].Start, pa.Local = true, netip.MustParseAddr("192.0.2.1")
	a, b := s.twoNodes(pa, pb)
	b.elsewhere(true)
	s.take(a, a.Start(s.now))
	s.run(10 * time.Minute)
	if n := int(a.Stats().Failures[NoSelectors]); n < 10 || n > 20 {
		t.Errorf("asked %d times in ten minutes", n)
	}
	if a.Stats().Up != 1 || a.has(IKEDown) != 0 {
		t.Errorf("%d IKE SAs came up", a.Stats().Up)
	}
	b.elsewhere(false)
	s.until("a child", time.Minute, func() bool { return len(a.sad) == 1 })
	s.run(10 * time.Second)
	if len(s.pairs(a, b, "net")) != 1 || a.Stats().Up != 1 {
		t.Errorf("%d pairs, %d IKE SAs", len(s.pairs(a, b, "net")), a.Stats().Up)
	}
}

// One without Start is asked for once.
func TestNoStartAfterRefusal(t *testing.T) {
	s := newSim(t, 5)
	a, b := s.twoNodes(pskPeers())
	b.elsewhere(true)
	s.call(a, "b", "net")
	s.run(10 * time.Minute)
	if n := a.Stats().Failures[NoSelectors]; n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// A child whose rekeys are all refused ends with its hard lifetime, and is asked for
// again, by whoever says Start.
func TestStartAfterHardLifetime(t *testing.T) {
	for _, theirs := range []bool{false, true} { // the peer has called, the Start is ours
		s := newSim(t, 5)
		pa, pb := pskPeers()
		pa.Children[0].Lifetime = 10 * time.Minute
		a, b := s.twoNodes(pa, pb)
		if theirs {
			s.call(b, "a", "net")
		} else {
			s.call(a, "b", "net")
		}
		s.run(time.Second)
		pa.Children[0].Start = true
		b.elsewhere(true)
		s.until("the end of the child", 15*time.Minute, func() bool { return a.has(ChildDown) == 1 })
		if a.Stats().Failures[NoSelectors] == 0 {
			t.Error("no rekey was refused")
		}
		s.run(time.Hour)
		b.elsewhere(false)
		s.until("a child again", time.Minute, func() bool { return len(a.sad) == 1 })
		s.run(10 * time.Second)
		if len(s.pairs(a, b, "net")) != 1 || len(a.sas) != 1 {
			t.Errorf("%d pairs, %d IKE SAs", len(s.pairs(a, b, "net")), len(a.sas))
		}
	}
}

// Whoever says Start calls also when the IKE SA that ends was the peer's call.
func TestStartAfterTheirCall(t *testing.T) {
	s := newSim(t, 5)
	pa, pb := pskPeers()
	a, b := s.twoNodes(pa, pb)
	s.call(b, "a", "net")
	s.run(time.Second)
	pa.Children[0].Start = true
	s.take(b, b.Terminate(s.now, "", ""))
	s.until("a child again", time.Minute, func() bool { return len(b.sad) == 1 })
	if len(s.pairs(a, b, "net")) != 1 {
		t.Error("not on both sides")
	}
}

// A child that was asked for with a call of ours which lost against the peer's own
// call is asked for over that one.
func TestStartBesideTheirCall(t *testing.T) {
	for seed := range uint64(8) {
		s := newSim(t, seed)
		pa, pb := pskPeers()
		more := func(p *Peer, here, there string) {
			p.Children = append(p.Children, &Child{Name: "more", LocalTS: []TrafficSelector{SelectorOf(netip.MustParsePrefix(here))},
				RemoteTS: []TrafficSelector{SelectorOf(netip.MustParsePrefix(there))}})
		}
		more(pa, "10.1.0.0/16", "10.2.0.0/16")
		more(pb, "10.2.0.0/16", "10.1.0.0/16")
		pa.Children[1].Start, pa.Local = true, netip.MustParseAddr("192.0.2.1")
		a, b := s.twoNodes(pa, pb)
		s.take(a, a.Start(s.now))
		s.call(b, "a", "net")
		s.run(10 * time.Second)
		if len(s.pairs(a, b, "more")) != 1 || len(s.pairs(a, b, "net")) != 1 {
			s.dump()
			t.Fatalf("seed %d: %d and %d children", seed, len(s.pairs(a, b, "more")), len(s.pairs(a, b, "net")))
		}
	}
}

// What was terminated by hand is not made anew, although it was about to be asked
// for again.
func TestTerminateBeforeNextTry(t *testing.T) {
	for _, child := range []string{"", "net"} {
		s := newSim(t, 5)
		pa, pb := pskPeers()
		pa.Children[0].Start, pa.Local = true, netip.MustParseAddr("192.0.2.1")
		a, b := s.twoNodes(pa, pb)
		b.elsewhere(true)
		s.take(a, a.Start(s.now))
		s.run(30 * time.Second)
		s.take(a, a.Terminate(s.now, "b", child))
		b.elsewhere(false)
		s.run(time.Hour)
		if len(a.sad) != 0 {
			t.Errorf("terminate %q: it is back", child)
		}
	}
}

// A caller that was to get an address and got none begins anew: the address is asked
// for in IKE_AUTH alone (RFC 7296 section 3.15). It has it soon after there is one.
func TestStartWithoutAddress(t *testing.T) {
	for _, wait := range []time.Duration{time.Second, 10 * time.Hour} {
		s := newSim(t, 7)
		pool, lan := netip.MustParsePrefix("10.5.0.9/32"), []TrafficSelector{SelectorOf(netip.MustParsePrefix("10.1.0.0/16"))}
		caller := func(name, at string) *Peer {
			p, _ := pskPeers()
			p.LocalID, p.Children[0].RemoteTS, p.Children[0].Start, p.RequestIPv4 = Identity{idFQDN, name + ".example"}, lan, true, true
			p.Local = netip.MustParseAddr(at)
			return p
		}
		_, pg := pskPeers()
		pg.Name, pg.RemoteID, pg.Endpoint, pg.Pools = "callers", "*.example", netip.AddrPort{}, []netip.Prefix{pool}
		pg.Children[0].LocalTS, pg.Children[0].RemoteTS = lan, []TrafficSelector{SelectorOf(pool)}
		gw := s.add("gw", "192.0.2.2", Config{Peers: []*Peer{pg}})
		a := s.add("a", "192.0.2.1", Config{Peers: []*Peer{caller("a", "192.0.2.1")}})
		b := s.add("b", "192.0.2.3", Config{Peers: []*Peer{caller("b", "192.0.2.3")}})
		s.take(a, a.Start(s.now))
		s.run(time.Second)
		s.take(b, b.Start(s.now))
		s.run(time.Second)
		if len(a.sad) != 1 || b.Stats().Failures[NoAddress] == 0 {
			t.Fatalf("a has %d children, b heard %d times that there is no address", len(a.sad), b.Stats().Failures[NoAddress])
		}
		before := b.Stats().Failures[NoAddress]
		s.run(wait)
		if n := b.Stats().Failures[NoAddress] - before; wait > time.Hour && (n < 550 || n > 700) {
			t.Errorf("b asked %d times in %s", n, wait)
		}
		if n := len(gw.sas); n > 2 {
			t.Errorf("the gateway has %d IKE SAs", n)
		}
		s.take(a, a.Terminate(s.now, "", ""))
		s.until("an address", 66*time.Second, func() bool { return len(b.sad) == 1 })
		for _, x := range b.sad {
			if len(x.Assigned) != 1 || x.Assigned[0] != netip.MustParseAddr("10.5.0.9") {
				t.Errorf("b has %v", x.Assigned)
			}
		}
	}
}
