package ike

import (
	"net/netip"
	"testing"
	"time"
)

func tcpFrom(local string, lp uint16, remote string, rp uint16) Flow {
	side := func(a string, p uint16) TrafficSelector {
		return TrafficSelector{First: netip.MustParseAddr(a), Last: netip.MustParseAddr(a), Protocol: 6, FirstPort: p, LastPort: p}
	}
	return Flow{side(local, lp), side(remote, rp)}
}

// ask has a node make a child for a packet.
func (s *sim) ask(n *node, peer, child string, f Flow) {
	s.t.Helper()
	o, err := n.Initiate(s.now, Call{Peer: peer, Child: child, Local: netip.AddrPortFrom(n.addr, 0), Packet: f})
	if err != nil {
		s.t.Fatal(err)
	}
	s.take(n, o)
}

// netsBetween has a with 10.1.0.0/16 and b with 10.2.0.0/16 behind it.
func netsBetween(a, b *Peer) {
	a.Children[0].LocalTS, a.Children[0].RemoteTS = ts("10.1.0.0/16"), ts("10.2.0.0/16")
	b.Children[0].LocalTS, b.Children[0].RemoteTS = ts("10.2.0.0/16"), ts("10.1.0.0/16")
}

// The packet that asks for a child is offered first, by both ways to make one,
// and the child that comes of it is the same as without (RFC 7296 section 2.9).
func TestPacketIsOfferedFirst(t *testing.T) {
	flow := tcpFrom("10.1.0.7", 40000, "10.2.0.9", 443)
	for _, second := range []bool{false, true} {
		s := newSim(t, 5)
		pa, pb := pskPeers()
		netsBetween(pa, pb)
		if second { // by CREATE_CHILD_SA
			pa.Children = append(pa.Children, &Child{Name: "other", LocalTS: ts("10.3.0.0/16"), RemoteTS: ts("10.4.0.0/16")})
			pb.Children = append(pb.Children, &Child{Name: "other", LocalTS: ts("10.4.0.0/16"), RemoteTS: ts("10.3.0.0/16")})
		}
		a, b := s.twoNodes(pa, pb)
		if second {
			s.call(a, "b", "other")
			s.run(3 * time.Second)
		}
		p := a.cfg.Peers[0]
		o, err := a.offerChild(&ikeSA{peer: p, local: netip.AddrPortFrom(a.addr, 500), remote: p.Endpoint, shown: p.Endpoint.Addr()}, wish{p.Children[0], flow}, !second)
		if err != nil {
			t.Fatal(err)
		}
		if len(o.tsi) != 2 || o.tsi[0] != flow.Local || len(o.tsr) != 2 || o.tsr[0] != flow.Remote {
			t.Errorf("offered %v to %v", o.tsi, o.tsr)
		}
		a.release(o.spi)
		a.end()
		s.ask(a, "b", "net", flow)
		s.run(3 * time.Second)
		x := s.pairs(a, b, "net")
		if len(x) != 1 || len(x[0].LocalTS) != 1 || x[0].LocalTS[0] != ts("10.1.0.0/16")[0] || x[0].RemoteTS[0] != ts("10.2.0.0/16")[0] {
			s.dump()
			t.Fatalf("%d children", len(x))
		}
		// A packet that the child holds asks for nothing more.
		before := s.count
		s.ask(a, "b", "net", tcpFrom("10.1.0.8", 1, "10.2.0.8", 2))
		if s.run(time.Second); s.count != before {
			t.Error("a packet that the child holds has asked for another")
		}
	}
}

// Of several children that a peer may have, the responder takes the one that
// holds the first selectors, though another comes first and overlaps as well.
func TestResponderTakesFirstChoice(t *testing.T) {
	s := newSim(t, 5)
	pa, pb := pskPeers()
	netsBetween(pa, pb)
	web := TrafficSelector{First: netip.MustParseAddr("10.2.0.0"), Last: netip.MustParseAddr("10.2.255.255"), Protocol: 6, FirstPort: 80, LastPort: 80}
	pb.Children = append([]*Child{{Name: "web", LocalTS: []TrafficSelector{web}, RemoteTS: ts("10.1.0.0/16")}}, pb.Children...)
	a, b := s.twoNodes(pa, pb)
	flow := tcpFrom("10.1.0.7", 40000, "10.2.0.9", 22)
	s.ask(a, "b", "net", flow)
	s.run(3 * time.Second)
	if len(a.sad) != 1 || len(b.sad) != 1 {
		s.dump()
		t.Fatal("no child")
	}
	for _, x := range a.sad {
		if !flow.within(x.LocalTS, x.RemoteTS) {
			t.Errorf("the responder has narrowed to %s to %s", selectorText(x.LocalTS), selectorText(x.RemoteTS))
		}
	}
	for _, x := range b.sad {
		if x.Name != "net" {
			t.Errorf("it is child %q", x.Name)
		}
	}
}

// A peer that takes less of an offer than we have gets another for a packet
// outside of it, up to a bound, and each packet its SA.
func TestNarrowPeer(t *testing.T) {
	s := newSim(t, 5)
	pa, pb := pskPeers()
	netsBetween(pa, pb)
	pb.Children = nil
	for _, n := range []string{"10.2.1.0/24", "10.2.2.0/24"} {
		pb.Children = append(pb.Children, &Child{Name: n, LocalTS: ts(n), RemoteTS: ts("10.1.0.0/16")})
	}
	a, b := s.twoNodes(pa, pb)
	one, two := tcpFrom("10.1.0.7", 40000, "10.2.1.9", 22), tcpFrom("10.1.0.7", 40001, "10.2.2.9", 22)
	holds := func(f Flow) (n int) {
		for _, x := range a.sad {
			if f.within(x.LocalTS, x.RemoteTS) {
				n++
			}
		}
		return n
	}
	for range 3 {
		s.ask(a, "b", "net", one)
		s.run(3 * time.Second)
		s.ask(a, "b", "net", two)
		s.run(3 * time.Second)
	}
	if len(a.sad) != 2 || len(b.sad) != 2 || holds(one) != 1 || holds(two) != 1 {
		s.dump()
		t.Errorf("%d children, %d and %d for the packets", len(a.sad), holds(one), holds(two))
	}
	// What the peer has no SA for at all is asked for once, and said.
	a.log = nil
	none := tcpFrom("10.1.0.7", 40001, "10.2.3.9", 22)
	for range 5 {
		s.ask(a, "b", "net", none)
		s.run(5 * time.Second)
	}
	if len(a.sad) != 2 || holds(none) != 0 || a.has(Failed) != 1 || a.failure() != NoSelectors {
		s.dump()
		t.Errorf("%d children, %d events", len(a.sad), a.has(Failed))
	}
	// Each lives on through its rekey.
	s.take(a, a.Rekey(s.now, "", "net"))
	s.run(20 * time.Second)
	if len(a.sad) != 2 || holds(one) != 1 || holds(two) != 1 {
		s.dump()
		t.Errorf("after a rekey %d children, %d and %d for the packets", len(a.sad), holds(one), holds(two))
	}
}

// A peer that has to call one address of ours, and a child that is at one, are
// not to be had at another.
func TestCallToAnotherAddress(t *testing.T) {
	for name, row := range map[string]struct {
		change func(*Peer)
		why    Failure
	}{
		"ike block":   {func(p *Peer) { p.Local = netip.MustParseAddr("192.0.2.99") }, NoProposal},
		"ipsec block": {func(p *Peer) { p.Children[0].Local = netip.MustParseAddr("192.0.2.99") }, NoSelectors},
	} {
		for _, right := range []bool{false, true} {
			s := newSim(t, 5)
			pa, pb := pskPeers()
			row.change(pb)
			if right {
				pa.Endpoint = netip.MustParseAddrPort("192.0.2.99:500")
			}
			a, b := s.twoNodes(pa, pb)
			b.others = append(b.others, netip.MustParseAddr("192.0.2.99"))
			s.call(a, "b", "net")
			s.run(10 * time.Second)
			if (len(b.sad) == 1) != right || (b.failure() == NoFailure) != right || !right && a.failure() != row.why {
				t.Errorf("%s, at the right address %v: %d children, %v and %v", name, right, len(b.sad), a.failure(), b.failure())
			}
		}
	}
}

// A remote user's first packet has the address of before the gateway lent one. That
// is no failure, and said.
func TestPacketOfBeforeTheLentAddress(t *testing.T) {
	s := newSim(t, 11)
	pool, lan := netip.MustParsePrefix("10.5.0.0/24"), []TrafficSelector{SelectorOf(netip.MustParsePrefix("10.1.0.0/16"))}
	user, gateway := pskPeers()
	user.RequestIPv4, user.Children[0].LocalTS, user.Children[0].RemoteTS = true, ts("0.0.0.0/0"), lan
	gateway.Pools, gateway.Children[0].LocalTS, gateway.Children[0].RemoteTS = []netip.Prefix{pool}, lan, []TrafficSelector{SelectorOf(pool)}
	a, _ := s.twoNodes(user, gateway)
	s.ask(a, "b", "net", tcpFrom(a.addr.String(), 40000, "10.1.0.9", 443))
	s.run(3 * time.Second)
	if len(a.sad) != 1 || a.failure() != NoFailure {
		t.Errorf("%d children, failure %v", len(a.sad), a.failure())
	}
	if a.told(Address, "has the address of before, "+a.addr.String()) != 1 {
		s.dump()
		t.Error("the packet's fate is not said")
	}
}
