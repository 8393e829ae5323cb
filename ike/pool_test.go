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

// A lease is free when the last IKE SA of its identity has ended, and belongs to
// nobody else before.
func TestLeaseOfTwo(t *testing.T) {
	l := newLeases()
	p := &Peer{Name: "p", Pools: []netip.Prefix{netip.MustParsePrefix("10.99.0.0/30")}} // 10.99.0.2 alone
	give := func(name string, holder uint64) (leaseKey, bool) {
		return l.give(p, Identity{idFQDN, name}, holder, true, false)
	}
	k, ok := give("a.example", 1)
	if k2, ok2 := give("A.example", 2); !ok || !ok2 || k2 != k {
		t.Fatalf("the second IKE SA of one identity has %v, the first %v", k2, k)
	}
	l.release(k, 2)
	if _, ok := give("b.example", 3); ok {
		t.Error("an address that is held is lent to another")
	}
	l.pass(k, 1, 4)
	l.release(k, 1)
	if _, ok := give("b.example", 3); ok {
		t.Error("an address that is held by a rekeyed IKE SA is lent to another")
	}
	if a, taken := l.ofOthers(leaseKey{peer: "p", id: Identity{idFQDN, "b.example"}}, []TrafficSelector{SelectorOf(p.Pools[0])}); !taken || a != k.ip4 {
		t.Errorf("of others: %v %v", a, taken)
	}
	if _, taken := l.ofOthers(k, []TrafficSelector{SelectorOf(p.Pools[0])}); taken {
		t.Error("its own address is another's")
	}
	l.release(k, 4)
	if _, ok := give("b.example", 3); !ok {
		t.Error("an address that nobody holds is not lent")
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
