package ike

import (
	"net/netip"
	"testing"
	"time"
)

// One identity has so many IKE SAs and no more, however many it asks for, in
// whatever letters; others find room, and the peer is told what has ended.
func TestSAsOfOneIdentity(t *testing.T) {
	s := newSim(t, 3)
	pa, pb := pskPeers()
	pb.Endpoint, pb.RemoteID, pb.MaxSAs = netip.AddrPort{}, "*.example", 3
	b := s.add("b", "192.0.2.2", Config{Peers: []*Peer{pb}, Limits: Limits{SAs: 20}})
	caller := func(addr, id string) func() *node {
		p := *pa
		p.LocalID = Identity{idFQDN, id}
		n := s.add(id, addr, Config{Peers: []*Peer{&p}})
		return func() *node {
			n.begin(s.now)
			n.startIKE(&p, netip.AddrPortFrom(n.addr, 500), netip.AddrPortFrom(b.addr, 500), []wish{{cfg: p.Children[0]}})
			s.take(n, n.end())
			s.run(time.Second)
			return n
		}
	}
	lower, upper, honest := caller("192.0.2.9", "greedy.example"), caller("192.0.2.9", "GREEDY.example"), caller("192.0.2.10", "honest.example")
	honest()
	for range 20 {
		lower()
		upper()
	}
	count := func(id string) (n int) {
		for _, st := range b.Status() {
			if st.Up && st.RemoteID.folded().Data == id {
				n++
			}
		}
		return n
	}
	if got := count("greedy.example"); got != 3 || count("honest.example") != 1 {
		t.Errorf("%d IKE SAs of the greedy, want 3; %d of the honest, want 1", got, count("honest.example"))
	}
	told := 0
	for _, e := range b.log {
		told += btoi(e.Kind == IKEDown && e.Setting == "max_sas_per_identity")
	}
	if told != 36 { // and one by INITIAL_CONTACT
		t.Errorf("%d are told to have ended, want 36", told)
	}
	if n := honest(); len(n.sad) != 2 {
		t.Errorf("the honest has %d children, want 2", len(n.sad))
	}
}

// A rekey is no further IKE SA, so it ends no other; and what a peer that rekeys
// never deletes fills no places.
func TestSAsOfOneIdentityRekeyed(t *testing.T) {
	s := newSim(t, 3)
	pa, pb := pskPeers()
	pb.MaxSAs = 1
	a, b := s.twoNodes(pa, pb)
	s.call(a, "b", "net")
	s.run(time.Second)
	for range 5 {
		s.take(a, a.Rekey(s.now, "", ""))
		s.run(3 * time.Second)
		s.take(b, b.Rekey(s.now, "", ""))
		s.run(3 * time.Second)
	}
	if len(s.pairs(a, b, "net")) != 1 || a.has(IKEDown)+b.has(IKEDown) != 0 || b.has(IKERekeyed) != 10 {
		s.dump()
		t.Fatalf("%d ended, %d rekeyed", a.has(IKEDown)+b.has(IKEDown), b.has(IKERekeyed))
	}
	s.nat = func(d Datagram) (Datagram, bool) { // the peer forgets to delete
		h, err := parseHeader(d.Data)
		return d, err == nil && (h.exchange != exInformational || d.Local.Addr() != a.addr)
	}
	for range 8 {
		s.take(a, a.Rekey(s.now, "", ""))
		s.run(3 * time.Second)
	}
	if n := len(b.sas); n > 2 {
		t.Errorf("%d IKE SAs of one identity", n)
	}
	if len(b.sad) != 1 {
		t.Errorf("%d children", len(b.sad))
	}
}
