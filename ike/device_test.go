package ike

import (
	"net/netip"
	"testing"
	"time"
)

// withoutInitialContact keeps a caller from saying INITIAL_CONTACT, as some do.
func withoutInitialContact(n *node) {
	p := n.cfg.Peers[0]
	if n.index.ofPeer[p] == nil {
		n.index.ofPeer[p] = map[*ikeSA]struct{}{}
	}
	n.index.ofPeer[p][&ikeSA{state: stReplaced, peer: p}] = struct{}{}
}

// devices is a gateway, and two devices with one identity. Where the port is not 0,
// both are behind one NAT, and that is what it adds to the ports of the second.
func devices(t *testing.T, port uint16) (s *sim, gw, a, b *node) {
	s, gw, a, b, _, pb := poolGateway(t)
	pb.LocalID, pb.RequestIPv4 = Identity{idFQDN, "victim.example"}, true
	withoutInitialContact(a)
	withoutInitialContact(b)
	nat := netip.MustParseAddr("198.51.100.7")
	s.nat = func(d Datagram) (Datagram, bool) {
		switch {
		case port == 0:
		case d.Local.Addr() == a.addr:
			d.Local = netip.AddrPortFrom(nat, d.Local.Port())
		case d.Local.Addr() == b.addr:
			d.Local = netip.AddrPortFrom(nat, d.Local.Port()+port)
		case d.Remote.Addr() == nat && d.Remote.Port() >= port:
			d.Remote = netip.AddrPortFrom(b.addr, d.Remote.Port()-port)
		case d.Remote.Addr() == nat:
			d.Remote = netip.AddrPortFrom(a.addr, d.Remote.Port())
		}
		return d, true
	}
	return s, gw, a, b
}

func lent(n *node) netip.Addr {
	for _, x := range n.sad {
		if len(x.Assigned) == 1 {
			return x.Assigned[0]
		}
	}
	return netip.Addr{}
}

// onceEach fails where the gateway has an address at two IKE SAs that go on.
func onceEach(t *testing.T, s *sim, gw *node) {
	t.Helper()
	at := map[netip.Addr]uint64{}
	for _, sa := range gw.sas {
		for _, a := range sa.lease.addrs() {
			if sa.next != nil {
				continue // rekeyed
			}
			if at[a] != 0 {
				s.dump()
				t.Fatalf("%s is at IKE SAs %d and %d", a, at[a], sa.id)
			}
			at[a] = sa.id
		}
	}
}

// Two devices with one identity have an address each, wherever they call from, and
// keep it through all rekeys; a third call of one of them, without the end of the
// one before, keeps its address as well, and the one before ends.
func TestTwoDevices(t *testing.T) {
	for name, port := range map[string]uint16{"two places": 0, "one NAT": 20000} {
		t.Run(name, func(t *testing.T) {
			s, gw, a, b := devices(t, port)
			s.call(a, "b", "net")
			s.run(time.Second)
			s.call(b, "b", "net")
			s.run(time.Second)
			first, second := lent(a), lent(b)
			if !first.IsValid() || !second.IsValid() || first == second {
				s.dump()
				t.Fatalf("the devices have %s and %s", first, second)
			}
			for range 60 {
				s.run(10 * time.Minute)
				onceEach(t, s, gw)
			}
			if lent(a) != first || lent(b) != second || len(gw.sas) != 2 || gw.has(IKERekeyed) < 4 {
				s.dump()
				t.Fatalf("after ten hours: %s and %s, %d IKE SAs", lent(a), lent(b), len(gw.sas))
			}
			// The first calls anew, and its IKE SA of before takes over nothing.
			for _, sa := range a.sas {
				a.begin(s.now)
				a.renew(sa)
				s.take(a, a.end())
			}
			end := s.now.Add(time.Minute)
			for s.step(end) {
				onceEach(t, s, gw)
				if lent(a) != first {
					s.dump()
					t.Fatal("there is a moment without the address")
				}
			}
			if len(a.sas) != 1 || len(gw.sas) != 2 || a.Stats().Up != 2 {
				s.dump()
				t.Errorf("%d IKE SAs there, %d here", len(gw.sas), len(a.sas))
			}
			s.run(3 * time.Hour)
			if lent(a) != first || lent(b) != second {
				t.Errorf("then: %s and %s", lent(a), lent(b))
			}
		})
	}
}

// A device that has started anew, does not say so, and calls from where it was has its
// address again; the gateway ends what is left of before. From elsewhere it has another
// address until the gateway has found out.
func TestDeviceStartsAnew(t *testing.T) {
	for _, moved := range []bool{false, true} {
		s, gw, a, b := devices(t, 0)
		s.call(a, "b", "net")
		s.run(time.Second)
		first := lent(a)
		s.nodes = []*node{gw, b} // a is gone without a word
		if !moved {
			b.addr = a.addr
		}
		s.call(b, "b", "net")
		s.run(time.Second)
		onceEach(t, s, gw)
		if got := lent(b); !got.IsValid() || (got == first) == moved {
			t.Errorf("moved %v: it had %s, and has %s", moved, first, got)
		}
		s.run(goodbye + time.Second)
		if n := len(gw.sas); n != 1+btoi(moved) {
			t.Errorf("moved %v: %d IKE SAs", moved, n)
		}
		if moved {
			continue
		}
		told := false
		for _, e := range gw.log {
			told = told || e.Kind == IKEDown && e.Setting == "pool"
		}
		if !told {
			t.Error("the end of the one before is not told")
		}
		s.run(3 * time.Hour)
		if lent(b) != first || len(gw.sas) != 1 {
			t.Errorf("later it has %s of %d IKE SAs", lent(b), len(gw.sas))
		}
	}
}
