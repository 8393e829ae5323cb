package ike

import (
	"net/netip"
	"testing"
	"time"
)

// poolGateway is a gateway as profile:vpn-gateway has it, and two callers; what
// thief does is up to the test.
func poolGateway(t *testing.T) (s *sim, gw, victim, thief *node, pv, pt *Peer) {
	t.Helper()
	s = newSim(t, 7)
	pool, lan := netip.MustParsePrefix("10.99.0.0/24"), []TrafficSelector{SelectorOf(netip.MustParsePrefix("10.1.0.0/16"))}
	caller := func(name string) *Peer {
		p, _ := pskPeers()
		p.LocalID, p.Children[0].RemoteTS = Identity{idFQDN, name + ".example"}, lan
		return p
	}
	_, pg := pskPeers()
	pg.Name, pg.RemoteID, pg.Endpoint, pg.Pools = "callers", "*.example", netip.AddrPort{}, []netip.Prefix{pool}
	pg.Children[0].LocalTS, pg.Children[0].RemoteTS = lan, []TrafficSelector{SelectorOf(pool)}
	pv, pt = caller("victim"), caller("thief")
	pv.RequestIPv4 = true
	gw = s.add("gw", "192.0.2.2", Config{Peers: []*Peer{pg}})
	victim = s.add("victim", "192.0.2.1", Config{Peers: []*Peer{pv}})
	thief = s.add("thief", "192.0.2.3", Config{Peers: []*Peer{pt}})
	return s, gw, victim, thief, pv, pt
}

// remotes gives what the gateway sends to an identity.
func remotes(n *node, id string) (out []string) {
	for _, x := range n.sad {
		if x.RemoteID.String() == id {
			out = append(out, selectorText(x.RemoteTS))
		}
	}
	return out
}

// Nobody has an address of a pool that was not lent to it: not whoever asks for
// none, in whichever exchange it makes its child, nor by a rekey.
func TestPoolAddressForTheTaking(t *testing.T) {
	pool := []TrafficSelector{SelectorOf(netip.MustParsePrefix("10.99.0.0/24"))}
	one := []TrafficSelector{selectorOfHost(netip.MustParseAddr("10.99.0.2"))}
	free := []TrafficSelector{selectorOfHost(netip.MustParseAddr("10.99.0.9"))}
	for name, f := range map[string]func(p *Peer){
		"childless, the victim's":      func(p *Peer) { p.Childless, p.Children[0].LocalTS = true, one },
		"childless, a free one":        func(p *Peer) { p.Childless, p.Children[0].LocalTS = true, free },
		"childless, all of the pool":   func(p *Peer) { p.Childless, p.Children[0].LocalTS = true, pool },
		"in IKE_AUTH, the victim's":    func(p *Peer) { p.Children[0].LocalTS = one },
		"in IKE_AUTH, all of the pool": func(p *Peer) { p.Children[0].LocalTS = pool },
		"with a lease, the victim's":   func(p *Peer) { p.RequestIPv4, p.Children[0].LocalTS = true, one },
	} {
		t.Run(name, func(t *testing.T) {
			s, gw, victim, thief, _, pt := poolGateway(t)
			f(pt)
			pt.Children[0].Start = true // it goes on trying
			s.call(victim, "b", "net")
			s.run(3 * time.Second)
			s.call(thief, "b", "net")
			s.run(3 * time.Minute)
			s.take(victim, victim.Rekey(s.now, "", "net"))
			s.run(10 * time.Second)
			if got := remotes(gw, "thief.example"); len(got) != 0 {
				s.dump()
				t.Errorf("the gateway sends %q to the thief", got)
			}
			if got := remotes(gw, "victim.example"); len(got) != 1 || got[0] != "10.99.0.2" {
				t.Errorf("the gateway sends %q to the victim", got)
			}
			told := false
			for _, e := range gw.log {
				told = told || e.Failure == NoAddress && e.Setting == "pool" || e.Failure == NoSelectors && e.RemoteID.String() == "thief.example"
			}
			if !told {
				t.Error("the gateway says nothing of it")
			}
		})
	}
}

// A lease is of one IKE SA at a time, also where one identity has several, and free
// when that has ended. Whoever comes back has what it had, and what it names first.
func TestLeaseOfTwo(t *testing.T) {
	l := newLeases()
	p := &Peer{Name: "p", Pools: []netip.Prefix{netip.MustParsePrefix("10.99.0.2/31"), netip.MustParsePrefix("10.98.0.1/32"), netip.MustParsePrefix("10.97.0.1/32")}}
	give := func(name string, holder, from uint64, named ...string) (leaseKey, bool) {
		x := loan{peer: p, id: Identity{idFQDN, name}, holder: holder, from: from, want4: true}
		for _, a := range named {
			x.named = append(x.named, netip.MustParseAddr(a))
		}
		return l.give(x)
	}
	k, ok := give("a.example", 1, 0)
	k2, ok2 := give("A.example", 2, 0)
	if !ok || !ok2 || k2.ip4 == k.ip4 || k2.who() != k.who() {
		t.Fatalf("the second IKE SA of one identity has %v, the first %v", k2, k)
	}
	if _, ok := give("b.example", 3, 0); ok {
		t.Error("an address that is held is lent to another")
	}
	l.pass(k, 1, 4)
	l.release(k, 1)
	if _, ok := give("b.example", 3, 0); ok {
		t.Error("an address that is held by a rekeyed IKE SA is lent to another")
	}
	all := []TrafficSelector{SelectorOf(netip.MustParsePrefix("10.0.0.0/8"))}
	for _, x := range []struct{ mine, theirs leaseKey }{{k, k2}, {k2, k}} {
		if a, taken := l.ofOthers(x.mine, all); !taken || a != x.theirs.ip4 {
			t.Errorf("of others: %v %v", a, taken)
		}
		if _, taken := l.ofOthers(x.mine, []TrafficSelector{selectorOfHost(x.mine.ip4)}); taken {
			t.Error("its own address is another's")
		}
	}
	if k5, ok := give("a.example", 5, 4); !ok || k5 != k {
		t.Errorf("the same device has %v, it had %v", k5, k)
	}
	if l.of(k, 4) != nil {
		t.Error("two hold one address")
	}
	l.release(k, 5)
	l.release(k2, 2)
	if k6, ok := give("a.example", 6, 0, k2.ip4.String()); !ok || k6 != k2 {
		t.Errorf("who names %s has %v", k2.ip4, k6)
	}
	if k7, ok := give("b.example", 7, 0, k2.ip4.String()); !ok || k7.ip4 != k.ip4 {
		t.Errorf("an address that nobody holds is not lent: %v", k7)
	}
	l.forget("p")
	if len(l.m)+len(l.taken)+len(l.freed) != 0 {
		t.Error("something is left")
	}
}

// A gateway makes children for who has a lease, and calls nobody else.
func TestGatewayCallsNobody(t *testing.T) {
	s, gw, victim, _, _, _ := poolGateway(t)
	at := netip.AddrPortFrom(victim.addr, 500)
	call := Call{Peer: "callers", Child: "net", Local: netip.AddrPortFrom(gw.addr, 0), Remote: at}
	if o, err := gw.Initiate(s.now, call); err == nil || len(o.Send) != 0 {
		t.Errorf("%d datagrams to a peer without a lease, error %v", len(o.Send), err)
	}
	s.call(victim, "b", "net")
	s.run(3 * time.Second)
	for id := range victim.sad {
		s.take(victim, victim.DeleteChild(s.now, id))
	}
	s.run(3 * time.Second)
	if got := remotes(gw, "victim.example"); len(got) != 0 {
		t.Fatalf("still there: %q", got)
	}
	o, err := gw.Initiate(s.now, call)
	if err != nil {
		t.Fatal(err)
	}
	s.take(gw, o)
	s.run(3 * time.Second)
	if got := remotes(gw, "victim.example"); len(got) != 1 || got[0] != "10.99.0.2" {
		s.dump()
		t.Errorf("after a call of the gateway: %q", got)
	}
}
