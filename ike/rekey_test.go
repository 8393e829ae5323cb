package ike

import (
	"testing"
	"time"
)

// upTwo gives two nodes with one child between them.
func upTwo(t *testing.T, change func(a, b *Peer)) (*sim, *node, *node) {
	t.Helper()
	s := newSim(t, 7)
	pa, pb := pskPeers()
	if change != nil {
		change(pa, pb)
	}
	a, b := s.twoNodes(pa, pb)
	s.call(a, "b", "net")
	s.run(3 * time.Second)
	if len(s.pairs(a, b, "net")) != 1 {
		s.dump()
		t.Fatal("no child")
	}
	return s, a, b
}

// Rekeys of either kind from either side, alone and at the same moment. A
// probe during the rekey asks at each step that each side sends into an SA
// that the other has.
func TestRekey(t *testing.T) {
	for name, row := range map[string]struct{ sides, child string }{
		"child by a":    {"a", "net"},
		"child by b":    {"b", "net"},
		"child by both": {"ab", "net"},
		"ike by a":      {"a", ""},
		"ike by b":      {"b", ""},
		"ike by both":   {"ab", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s, a, b := upTwo(t, nil)
			first, ike := s.pairs(a, b, "net")[0].ID, a.Status()[0].ID
			for range 5 {
				for _, c := range row.sides {
					n := s.nodes[c-'a']
					s.take(n, n.Rekey(s.now, "", row.child))
				}
				for end := s.now.Add(10 * time.Second); s.step(end); {
					for _, n := range s.nodes {
						peer := s.nodes[1-nodeIndex(s, n)]
						if !receives(peer, n.sad[n.out["net"]]) {
							t.Fatalf("%s sends into an SA that %s does not have", n.name, peer.name)
						}
					}
				}
				p := s.pairs(a, b, "net")
				if len(p) != 1 || len(a.Status()) != 1 || len(b.Status()) != 1 {
					s.dump()
					t.Fatalf("%d children, %d and %d IKE SAs", len(p), len(a.Status()), len(b.Status()))
				}
				if row.child != "" && p[0].ID == first || row.child == "" && (a.Status()[0].ID == ike || p[0].ID != first) {
					t.Fatal("nothing was rekeyed, or too much")
				}
				first, ike = p[0].ID, a.Status()[0].ID
			}
			for _, n := range s.nodes {
				if n.failure() != NoFailure || n.has(ChildDown)+n.has(IKEDown) != 0 {
					s.dump()
					t.Errorf("%s reports a failure", n.name)
				}
			}
		})
	}
}

func nodeIndex(s *sim, n *node) int {
	if s.nodes[0] == n {
		return 0
	}
	return 1
}

// receives says that a packet sent by an SA has one to arrive in.
func receives(n *node, x *installed) bool {
	if x == nil {
		return false
	}
	for _, y := range n.sad {
		if y.SPIIn == x.SPIOut {
			return true
		}
	}
	return false
}

// Lifetimes rekey by themselves, with jitter, for a day.
func TestLifetimes(t *testing.T) {
	s, a, b := upTwo(t, func(a, b *Peer) { b.DPD = 10 * time.Minute; a.DPD = 10 * time.Minute })
	s.run(24 * time.Hour)
	if len(s.pairs(a, b, "net")) != 1 || len(a.Status()) != 1 {
		s.dump()
		t.Fatal("the SAs did not survive a day")
	}
	if c, i := a.has(ChildRekeyed), a.has(IKERekeyed); c < 23 || i < 6 || c > 60 || i > 16 {
		t.Errorf("%d and %d rekeys in a day", c, i)
	}
	if a.failure() != NoFailure || b.failure() != NoFailure {
		s.dump()
		t.Error("failures")
	}
}

// The volume limits of a child rekey it.
func TestVolumeLimit(t *testing.T) {
	s, a, b := upTwo(t, func(a, b *Peer) { a.Children[0].Packets = 1000 })
	x := s.pairs(a, b, "net")[0]
	s.take(a, a.Report(s.now, []Usage{{ID: x.ID, Packets: 999}}))
	s.run(10 * time.Second)
	if a.has(ChildRekeyed) != 0 {
		t.Fatal("rekeyed too early")
	}
	s.take(a, a.Report(s.now, []Usage{{ID: x.ID, Packets: 1000}}))
	s.run(10 * time.Second)
	if a.has(ChildRekeyed) != 1 || len(s.pairs(a, b, "net")) != 1 {
		t.Error("not rekeyed")
	}
}

// A peer that is gone is noticed, its SAs go, and a child with Start comes
// back when the peer does.
func TestDeadPeer(t *testing.T) {
	s, a, b := upTwo(t, func(a, b *Peer) { a.Children[0].Start = true })
	dead := true
	s.nat = func(d Datagram) (Datagram, bool) { return d, !dead }
	s.run(95 * time.Second)
	if len(a.sad) != 0 || a.failure() != NoAnswer {
		s.dump()
		t.Fatal("a still believes in its peer")
	}
	s.run(10 * time.Minute)
	dead = false
	s.run(2 * time.Minute)
	if len(s.pairs(a, b, "net")) != 1 {
		s.dump()
		t.Error("the child did not come back")
	}
}

// A peer that has rebooted says INITIAL_CONTACT, and its old SAs go at once.
func TestReboot(t *testing.T) {
	s, a, b := upTwo(t, nil)
	pa, _ := pskPeers()
	s.nodes = s.nodes[1:]
	a2 := s.add("a2", "192.0.2.1", Config{Peers: []*Peer{pa}, Rand: testRand(99)})
	s.call(a2, "b", "net")
	s.run(3 * time.Second)
	if len(s.pairs(a2, b, "net")) != 1 || len(b.Status()) != 1 {
		s.dump()
		t.Error("old SAs are left")
	}
	_ = a
}

// DPD keeps quiet while traffic arrives.
func TestTrafficIsLife(t *testing.T) {
	s, a, b := upTwo(t, func(a, b *Peer) { b.DPD = -1 })
	x := s.pairs(a, b, "net")[0]
	before := s.count
	for range 60 {
		s.run(5 * time.Second)
		s.take(a, a.Report(s.now, []Usage{{ID: x.ID, LastIn: s.now}}))
	}
	if s.count != before {
		t.Errorf("%d datagrams while traffic flowed", s.count-before)
	}
	s.run(40 * time.Second)
	if s.count == before {
		t.Error("no probe after the traffic had stopped")
	}
}

// Many that are to be rekeyed together go one after the other: their answers
// must not come all at once.
func TestRekeyPaced(t *testing.T) {
	const clients = 300
	for _, child := range []string{"", "net"} {
		n := newBenchNet(t, benchKinds[0].change(t))
		for i := range clients {
			if !n.client(i) {
				t.Fatal("no child")
			}
		}
		sent := len(n.y.Rekey(n.now, "", child).Send)
		if sent != rekeyAtOnce {
			t.Errorf("%q: %d requests at once, want %d", child, sent, rekeyAtOnce)
		}
		for end := n.now.Add(clients * rekeyEach); ; {
			at, _ := n.y.Next()
			if at.After(end) {
				break
			}
			if at.Before(n.now.Add((time.Duration(sent) - rekeyAtOnce) * rekeyEach)) {
				t.Fatalf("%q: too early for the request after %d", child, sent)
			}
			sent += len(n.y.Tick(at).Send)
		}
		if sent != clients {
			t.Errorf("%q: %d requests, want %d", child, sent, clients)
		}
	}
}
