package ike

import (
	"net/netip"
	"testing"
	"time"
)

// A reload keeps what has not changed, and ends what has, on both sides.
func TestUpdate(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(*Peer)
		keep   bool // the IKE SA
		child  bool
		named  bool // where it is, a name says
	}{
		{"nothing", func(*Peer) {}, true, true, false},
		{"another address of the same name, where nobody answers", func(p *Peer) { p.Endpoint = netip.MustParseAddrPort("192.0.2.9:500") }, true, true, true},
		{"another address", func(p *Peer) { p.Endpoint = netip.MustParseAddrPort("192.0.2.9:500") }, false, false, false},
		{"start", func(p *Peer) { p.Children[0].Start = true }, true, true, false},
		{"another child beside it", func(p *Peer) { p.Children = append(p.Children, &Child{Name: "more"}) }, true, true, false},
		{"key", func(p *Peer) { p.PSK = []byte("another pre-shared key of some length") }, false, false, false},
		{"identity", func(p *Peer) { p.RemoteID = "c.example" }, false, false, false},
		{"child", func(p *Peer) { p.Children[0].Mode = Transport }, true, false, false},
		{"child gone", func(p *Peer) { p.Children = nil }, true, false, false},
		{"peer gone", func(p *Peer) { p.Name = "other" }, false, false, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			s, a, b := upTwo(t, func(pa, _ *Peer) { pa.Named = row.named })
			next, _ := pskPeers()
			next.Named = row.named
			row.change(next)
			o, err := a.Update(s.now, []*Peer{next})
			if err != nil {
				t.Fatal(err)
			}
			s.take(a, o)
			if _, there := a.sad[a.out["net"]]; !row.keep && there {
				t.Error("its traffic goes on after the update")
			}
			s.run(5 * time.Second)
			for _, n := range []*node{a, b} {
				st := n.Core.Stats()
				if n == a {
					st.SAs -= calling(a)
				}
				if (st.SAs == 1) != row.keep || (len(n.sad) == 1) != row.child {
					t.Errorf("%s: %d IKE SAs, %d children", n.name, st.SAs, len(n.sad))
				}
			}
		})
	}
}

func TestUpdateRefusesBadPeers(t *testing.T) {
	s, a, b := upTwo(t, nil)
	if _, err := a.Update(s.now, []*Peer{{Name: "b"}}); err == nil {
		t.Error("a peer without any key is taken")
	}
	if len(s.pairs(a, b, "net")) != 1 {
		t.Error("the update was refused and has ended a child")
	}
}

// DeleteChild ends one child, on both sides, and leaves the IKE SA.
func TestDeleteChild(t *testing.T) {
	s, a, b := upTwo(t, nil)
	s.take(a, a.DeleteChild(s.now, a.out["net"]))
	s.run(10 * time.Second)
	if len(a.sad)+len(b.sad) != 0 || a.Core.Stats().SAs != 1 {
		s.dump()
		t.Errorf("%d and %d children", len(a.sad), len(b.sad))
	}
}

// RekeyChild replaces one child, make before break.
func TestRekeyChild(t *testing.T) {
	s, a, b := upTwo(t, nil)
	old := a.out["net"]
	s.take(a, a.RekeyChild(s.now, old))
	s.take(a, a.RekeyChild(s.now, old)) // the packet path may ask twice
	s.run(30 * time.Second)
	if p := s.pairs(a, b, "net"); len(p) != 1 || a.out["net"] == old {
		s.dump()
		t.Errorf("%d children, in use %d, before %d", len(p), a.out["net"], old)
	}
}

// calling is how many IKE SAs of a node have had no answer yet.
func calling(n *node) (k int) {
	for _, sa := range n.sas {
		if sa.state == stInitSent {
			k++
		}
	}
	return k
}

// A peer whose name leads elsewhere is called there, for all its tunnels, and
// the IKE SA with where it was goes when the other has them: there is an SA to
// send by at all times, and no second one stays.
func TestPeerIsFollowed(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		s := newSim(t, 7)
		pa, pb := pskPeers()
		more := func(p *Peer, local, remote string) {
			p.Children[0].LocalTS, p.Children[0].RemoteTS = ts(local), ts(remote)
			p.Children = append(p.Children, &Child{Name: "more", LocalTS: ts("10.8.0.0/16"), RemoteTS: ts("10.8.0.0/16")})
		}
		more(pa, "10.1.0.0/16", "10.2.0.0/16")
		more(pb, "10.2.0.0/16", "10.1.0.0/16")
		pb.Endpoint, pa.Named = netip.AddrPort{}, true // it is called, and takes calls from anywhere
		source := "192.0.2.1"
		a := s.add("a", source, Config{Peers: []*Peer{pa}, Source: func(netip.Addr) netip.Addr { return netip.MustParseAddr(source) }})
		b := s.add("b", "192.0.2.2", Config{Peers: []*Peer{pb}})
		s.call(a, "b", "net")
		s.run(3 * time.Second)
		s.call(a, "b", "more")
		s.run(3 * time.Second)
		next, _ := pskPeers()
		more(next, "10.1.0.0/16", "10.2.0.0/16")
		to := "192.0.2.77"
		if v6 {
			to, source = "2001:db8::77", "2001:db8::1"
			a.others = append(a.others, netip.MustParseAddr(source))
		}
		b.others = append(b.others, netip.MustParseAddr(to))
		next.Endpoint, next.Named = netip.AddrPortFrom(netip.MustParseAddr(to), 0), true
		o, err := a.Update(s.now, []*Peer{next})
		if err != nil {
			t.Fatal(err)
		}
		s.take(a, o)
		for end := s.now.Add(15 * time.Second); s.step(end); {
			for _, name := range []string{"net", "more"} {
				if !receives(b, a.sad[a.out[name]]) {
					t.Fatalf("v6 %v: %s: nothing to send by", v6, name)
				}
			}
		}
		if len(a.sas) != 1 || len(b.sas) != 1 || a.theOne(t).remote.Addr().String() != to || len(s.pairs(a, b, "net")) != 1 || len(s.pairs(a, b, "more")) != 1 {
			s.dump()
			t.Errorf("v6 %v: %d and %d IKE SAs", v6, len(a.sas), len(b.sas))
		}
	}
}

// Who is called while a reload takes it out of the policy is not called again.
func TestExpelledWhileCalled(t *testing.T) {
	s, a, _ := upTwo(t, func(a, b *Peer) {})
	next, _ := pskPeers()
	next.Name, next.Children[0].Start, next.Local = "gone", true, netip.MustParseAddr("192.0.2.1")
	for _, peers := range [][]*Peer{{next}, nil} { // nobody answers: b is another there
		o, err := a.Update(s.now, peers)
		if err != nil {
			t.Fatal(err)
		}
		s.take(a, o)
	}
	s.run(5 * time.Minute)
	if len(a.sas) != 0 || len(a.again) != 0 {
		s.dump()
		t.Errorf("%d IKE SAs and %d calls planned with a peer that is in no policy", len(a.sas), len(a.again))
	}
}
