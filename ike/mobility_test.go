package ike

import (
	"net/netip"
	"testing"
	"time"
)

// A gateway leases addresses; the caller's child is narrowed to them, and a
// caller who comes back is who he was.
func TestPool(t *testing.T) {
	s := newSim(t, 7)
	pa, pb := pskPeers()
	pa.RequestIPv4, pa.RequestIPv6 = true, true
	all := []TrafficSelector{SelectorOf(netip.MustParsePrefix("10.1.0.0/16"))}
	pa.Children[0].RemoteTS, pb.Children[0].LocalTS = all, all
	pb.Pools = []netip.Prefix{netip.MustParsePrefix("10.99.0.0/24"), netip.MustParsePrefix("fd99::/64")}
	pb.DNS = []netip.Addr{netip.MustParseAddr("10.1.0.53")}
	a, b := s.twoNodes(pa, pb)
	want := ""
	for round := range 2 {
		s.call(a, "b", "net")
		s.run(3 * time.Second)
		p := s.pairs(a, b, "net")
		if len(p) != 1 {
			s.dump()
			t.Fatal("no child")
		}
		got := selectorText(p[0].LocalTS)
		if round == 0 {
			want = got
		}
		if got != want || got != "10.99.0.2, fd99::2" {
			t.Errorf("round %d: selectors %q, first %q", round, got, want)
		}
		for _, kind := range []string{"", "net"} {
			s.take(a, a.Rekey(s.now, "", kind))
			s.run(10 * time.Second)
		}
		if p := s.pairs(a, b, "net"); len(p) != 1 || selectorText(p[0].LocalTS) != want {
			s.dump()
			t.Errorf("after rekey: %d children", len(p))
		}
		s.take(a, a.Terminate(s.now, "", ""))
		s.run(5 * time.Second)
	}
}

// Where a caller writes 0.0.0.0 or ::, the address that it gets may stand.
func TestDynamicEnd(t *testing.T) {
	host := func(s string) TrafficSelector { return selectorOfHost(netip.MustParseAddr(s)) }
	leased := []TrafficSelector{host("10.99.0.2"), host("fd99::2")}
	for want, offer := range map[string][]TrafficSelector{
		"10.99.0.2": {host("0.0.0.0")}, "10.99.0.2, fd99::2": {host("0.0.0.0"), host("::")}, "fd99::2": {host("10.99.0.3"), host("::")}, "": {host("10.99.0.3"), host("fd99::3")},
	} {
		if got := selectorText(narrow(dynamicEnd(offer), leased)); got != want {
			t.Errorf("%s becomes %q, want %q", selectorText(offer), got, want)
		}
	}
}

// natBox puts a behind 198.51.100.1 with ports changed by shift.
func natBox(s *sim, shift *uint16) {
	in, out := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.1")
	s.nat = func(d Datagram) (Datagram, bool) {
		if d.Local.Addr() == in {
			d.Local = netip.AddrPortFrom(out, d.Local.Port()+*shift)
		}
		if d.Remote.Addr() == out {
			d.Remote = netip.AddrPortFrom(in, d.Remote.Port()-*shift)
		}
		return d, true
	}
}

func TestNAT(t *testing.T) {
	for _, mode := range []Mode{Tunnel, Transport} {
		for _, mobike := range []Switch{On, Off} {
			s := newSim(t, 7)
			pa, pb := pskPeers()
			pb.Endpoint = netip.AddrPort{}
			pa.MOBIKE = mobike
			pa.Children[0].Mode, pb.Children[0].Mode = mode, mode
			if mode == Tunnel {
				net := []TrafficSelector{SelectorOf(netip.MustParsePrefix("10.1.0.0/16"))}
				pa.Children[0].LocalTS, pb.Children[0].RemoteTS = net, net
			}
			a, b := s.twoNodes(pa, pb)
			shift := uint16(10000)
			natBox(s, &shift)
			s.call(a, "b", "net")
			s.run(3 * time.Second)
			p := s.pairs(a, b, "net")
			if len(p) != 1 || !p[0].UDPEncap {
				s.dump()
				t.Fatalf("%s: no encapsulated child", mode)
			}
			at := func() netip.AddrPort {
				x := b.sad[b.out["net"]]
				return netip.AddrPortFrom(x.Remote, x.RemotePort)
			}
			if at() != netip.MustParseAddrPort("198.51.100.1:14500") {
				t.Errorf("%s: b sends to %s", mode, at())
			}
			// Each side knows the other as it sees it (RFC 7296 section 2.23.1).
			if x := b.sad[b.out["net"]]; mode == Transport && (selectorText(p[0].LocalTS) != "192.0.2.1" || selectorText(x.RemoteTS) != "198.51.100.1") {
				t.Errorf("a holds %s, b %s", selectorText(p[0].LocalTS), selectorText(x.RemoteTS))
			}
			shift = 20000 // the NAT has forgotten and maps anew
			s.run(2 * time.Minute)
			if len(s.pairs(a, b, "net")) != 1 {
				t.Fatalf("%s, mobike %v: lost when the NAT changed its mapping", mode, mobike == On)
			}
			if at().Port() != 24500 {
				t.Errorf("%s, mobike %v: b sends to %s", mode, mobike == On, at())
			}
		}
	}
}

// Transport mode is between two addresses: when one changes, the child is made
// anew.
func TestAddressChangeTransport(t *testing.T) {
	s, a, b := upTwo(t, func(a, b *Peer) {
		a.Children[0].Mode, b.Children[0].Mode = Transport, Transport
		a.Children[0].Start = true
		b.Endpoint = netip.AddrPort{}
	})
	to := netip.MustParseAddr("192.0.2.77")
	a.addr = to
	s.take(a, a.AddressChange(s.now, netip.MustParseAddr("192.0.2.1"), to))
	s.run(15 * time.Second) // the old one receives for a moment
	p := s.pairs(a, b, "net")
	if len(p) != 1 || p[0].Local != to || selectorText(p[0].LocalTS) != "192.0.2.77" {
		s.dump()
		t.Errorf("%d children after the move", len(p))
	}
}

// A NAT that has another address now moves the session only when the side that
// began it says so, authenticated (RFC 4555 section 3.8); and it does, as soon as
// the next probe shows it.
func TestNATMovesAddress(t *testing.T) {
	s := newSim(t, 7)
	pa, pb := pskPeers()
	pb.Endpoint = netip.AddrPort{}
	net := []TrafficSelector{SelectorOf(netip.MustParsePrefix("10.1.0.0/16"))}
	pa.Children[0].LocalTS, pb.Children[0].RemoteTS = net, net
	a, b := s.twoNodes(pa, pb)
	in, out := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.1")
	s.nat = func(d Datagram) (Datagram, bool) {
		if d.Local.Addr() == in {
			d.Local = netip.AddrPortFrom(out, d.Local.Port()+10000)
		}
		if d.Remote.Addr() == out {
			d.Remote = netip.AddrPortFrom(in, d.Remote.Port()-10000)
		}
		return d, d.Remote.Addr() == in || d.Remote.Addr() == b.addr // old mappings are gone
	}
	s.call(a, "b", "net")
	s.run(3 * time.Second)
	out = netip.MustParseAddr("198.51.100.2")
	s.run(time.Minute)
	if len(s.pairs(a, b, "net")) != 1 || b.sad[b.out["net"]].Remote != out {
		s.dump()
		t.Errorf("b sends to %s", b.sad[b.out["net"]].Remote)
	}
}

// An address that only a relay has seen does not move a peer that has none of
// its own hidden.
func TestRoamNeedsNAT(t *testing.T) {
	s, a, b := upTwo(t, func(a, b *Peer) { a.MOBIKE, b.MOBIKE = Off, Off })
	x := b.sad[b.out["net"]]
	local := netip.AddrPortFrom(b.addr, 4500)
	s.take(b, b.Roamed(s.now, x.SPIIn, local, netip.MustParseAddrPort("203.0.113.66:4500")))
	if got := b.sad[b.out["net"]].Remote; got != a.addr {
		t.Errorf("b sends to %s", got)
	}
}

// Without a NAT nobody sees one.
func TestNoNAT(t *testing.T) {
	s, a, b := upTwo(t, nil)
	if a.sad[a.out["net"]].UDPEncap || b.sad[b.out["net"]].UDPEncap {
		s.dump()
		t.Error("ESP goes in UDP although there is no NAT")
	}
}

func TestAddressChange(t *testing.T) {
	s, a, b := upTwo(t, nil)
	to := netip.MustParseAddr("192.0.2.77")
	a.addr = to
	s.take(a, a.AddressChange(s.now, netip.MustParseAddr("192.0.2.1"), to))
	s.run(5 * time.Second)
	if len(s.pairs(a, b, "net")) != 1 || b.sad[b.out["net"]].Remote != to || a.sad[a.out["net"]].Local != to {
		s.dump()
		t.Error("the session did not move")
	}
	for _, kind := range []string{"", "net"} {
		s.take(b, b.Rekey(s.now, "", kind))
		s.run(10 * time.Second)
	}
	s.run(2 * time.Minute)
	if len(s.pairs(a, b, "net")) != 1 {
		s.dump()
		t.Error("the session did not live on")
	}
}
