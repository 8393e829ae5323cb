package ike

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// liars begin from n addresses that are theirs, with cookies, and go no further.
func liars(b *node, s *sim, msg []byte, n, spi int) {
	for i := range n {
		binary.BigEndian.PutUint64(msg, uint64(spi+i+1))
		d := Datagram{Local: netip.MustParseAddrPort("192.0.2.2:500"), Remote: addrN(i), Data: append([]byte(nil), msg...)}
		for _, answer := range b.Handle(s.now, d).Send {
			if answer.Data[16] == plNotify {
				d.Data = withCookie(msg, answer.Data)
				b.Handle(s.now, d)
			}
		}
	}
}

// Attackers with more addresses than there are places, who do send cookies back,
// keep nobody out for longer than they take to become suspects.
func TestHalfOpenTaken(t *testing.T) {
	s := newSim(t, 3)
	pa, pb := pskPeers()
	pb.Endpoint = netip.AddrPort{}
	a := s.add("a", "192.0.2.1", Config{Peers: []*Peer{pa}})
	b := s.add("b", "192.0.2.2", Config{Peers: []*Peer{pb}, Limits: Limits{HalfOpen: 100, CookieAfter: 20}})
	msg := initMessage(t, 9)
	for spi := 0; s.now.Sub(simStart) < 4*time.Second; spi += 1000 {
		liars(b, s, msg, 200, spi)
		s.run(100 * time.Millisecond)
	}
	if b.guard.total != 100 || len(b.sas) != 100 {
		t.Errorf("%d half-open, %d SAs, want 100", b.guard.total, len(b.sas))
	}
	s.call(a, "b", "net")
	for spi := 1 << 20; s.now.Sub(simStart) < 4500*time.Millisecond; spi += 1000 {
		liars(b, s, msg, 200, spi)
		s.run(10 * time.Millisecond)
	}
	if len(s.pairs(a, b, "net")) != 1 {
		s.dump()
		t.Error("an honest peer did not get through")
	}
	if b.guard.standing(group(a.addr), s.now) != proven || b.guard.standing(group(addrN(1).Addr()), s.now) != suspect {
		t.Error("the book is wrong about who is who")
	}
	d := Datagram{Remote: addrN(1), Data: msg}
	if !b.Suspect(s.now, d) || b.Suspect(s.now, Datagram{Remote: netip.AddrPortFrom(a.addr, 500), Data: msg}) ||
		b.Suspect(s.now.Add(suspicion), d) || b.Suspect(s.now, Datagram{Remote: addrN(1), Data: msg[:10]}) {
		t.Error("the wrong one is suspected")
	}
	s.run(2 * time.Minute)
	g := &b.guard
	if g.total != 0 || len(g.perAddr) != 0 || len(b.inits) != 0 || g.places[proven].Len()+g.places[unknown].Len()+g.places[suspect].Len() != 0 {
		t.Errorf("left: %d half-open, %d addresses, %d", g.total, len(g.perAddr), len(b.inits))
	}
}

// Whoever cannot be shown to hear us is not suspected: somebody may have used its
// address.
func TestForgedAddressIsNoSuspect(t *testing.T) {
	s := newSim(t, 3)
	_, pb := pskPeers()
	pb.Endpoint = netip.AddrPort{}
	b := s.add("b", "192.0.2.2", Config{Peers: []*Peer{pb}})
	b.Handle(s.now, Datagram{Local: netip.MustParseAddrPort("192.0.2.2:500"), Remote: addrN(1), Data: initMessage(t, 9)})
	if b.guard.total != 1 {
		t.Fatal("not half-open")
	}
	s.run(time.Minute)
	if b.guard.total != 0 || b.guard.standing(group(addrN(1).Addr()), s.now) != unknown {
		t.Error("an address is a suspect for what came in its name")
	}
}

// A wrong key makes a suspect, who must bring a cookie; the right key clears it.
func TestWrongKeyMakesSuspect(t *testing.T) {
	s := newSim(t, 3)
	pa, pb := pskPeers()
	right := pa.PSK
	pa.PSK = []byte("not the key that the other side has")
	a, b := s.twoNodes(pa, pb)
	at := group(a.addr)
	s.call(a, "b", "net")
	s.run(time.Second)
	if b.guard.standing(at, s.now) != suspect {
		t.Fatal("a wrong key is forgiven")
	}
	pa.PSK = right
	s.call(a, "b", "net")
	s.run(time.Second)
	if b.Stats().Cookies != 1 || len(s.pairs(a, b, "net")) != 1 || b.guard.standing(at, s.now) != proven {
		t.Errorf("%d cookies, standing %d", b.Stats().Cookies, b.guard.standing(at, s.now))
	}
}

// A book has as many pages as it may, and loses the oldest.
func TestBook(t *testing.T) {
	b := newBook(maxPages)
	addr := func(i int) netip.Prefix {
		return group(netip.MustParseAddr(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255)))
	}
	for i := range maxPages {
		b.write(addr(i), simStart)
	}
	b.write(addr(0), simStart) // again: the latest now
	b.write(addr(maxPages), simStart)
	_, first := b.pages[addr(0)]
	_, second := b.pages[addr(1)]
	if len(b.pages) != maxPages || b.order.Len() != maxPages || !first || second {
		t.Errorf("%d pages, %d in order, the latest there %v, the oldest %v", len(b.pages), b.order.Len(), first, second)
	}
	b.erase(addr(1))
	b.erase(addr(0))
	if len(b.pages) != maxPages-1 || b.order.Len() != maxPages-1 {
		t.Errorf("%d pages, %d in order", len(b.pages), b.order.Len())
	}
}
