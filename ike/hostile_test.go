package ike

import (
	"crypto/rand"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// hostile is a peer that has authenticated, and that says from then on what it
// likes, from whatever address it writes on the packet.
type hostile struct {
	*sim
	sa   *ikeSA // its own side
	to   *node
	last Datagram // its last request
}

// turn makes a hostile peer of a node, which does nothing by itself any more.
func (s *sim) turn(a, b *node) *hostile {
	s.t.Helper()
	for _, sa := range a.sas {
		if sa.state == stUp {
			s.nodes = slices.DeleteFunc(s.nodes, func(n *node) bool { return n == a })
			return &hostile{sim: s, sa: sa, to: b}
		}
	}
	s.dump()
	s.t.Fatal("the peer has no IKE SA")
	return nil
}

func (h *hostile) handle(from string, data []byte) []Datagram {
	h.last = Datagram{Local: netip.AddrPortFrom(h.to.addr, h.sa.remote.Port()), Remote: netip.MustParseAddrPort(from), Data: data}
	o := h.to.Handle(h.now, h.last)
	h.take(h.to, o)
	return o.Send
}

// ask sends a request and gives the answer, and where it has gone to.
func (h *hostile) ask(from string, exchange uint8, list ...payload) (*opened, netip.AddrPort) {
	h.t.Helper()
	id := h.sa.nextOut
	msgs, err := sealMessage(h.sa.header(exchange, id, false), list, h.sa.out, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	h.sa.nextOut++
	for _, d := range h.handle(from, msgs[0]) {
		if x, err := parseHeader(d.Data); err == nil && x.response() && x.id == id {
			m, err := openMessage(x, d.Data, h.sa.in, &reassembly{})
			if err != nil {
				h.t.Fatal(err)
			}
			return m, d.Remote
		}
	}
	return nil, netip.AddrPort{}
}

// respond answers the request of b that is under way, without having heard it.
func (h *hostile) respond(from string, list ...payload) {
	h.t.Helper()
	var req *request
	for _, sa := range h.to.sas {
		if sa.req != nil {
			req = sa.req
		}
	}
	if req == nil {
		return
	}
	msgs, err := sealMessage(h.sa.header(req.exchange, req.id, true), list, h.sa.out, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	h.handle(from, msgs[0])
}

// move says by MOBIKE that the peer is where the message comes from.
func (h *hostile) move(from string) { h.ask(from, exInformational, note(nUpdateSAAddrs)) }

// child asks for one between two addresses.
func (h *hostile) child(cfg *Child, theirs, ours string) []payload {
	p := cfg.proposals()[0].byKE(true)[0]
	p.spi = []byte{1, 2, 3, byte(h.sa.nextOut)}
	nonce := make([]byte, nonceLen)
	_, _ = rand.Read(nonce)
	list := []payload{saPayload([]Proposal{p}), {kind: plNonce, body: nonce},
		tsPayload(plTSi, []TrafficSelector{selectorOfHost(netip.MustParseAddr(theirs))}),
		tsPayload(plTSr, []TrafficSelector{selectorOfHost(netip.MustParseAddr(ours))})}
	if cfg.Mode == Transport {
		list = append(list, note(nUseTransport))
	}
	return list
}

// speaksFor says that the peer has an SA for packets of an address.
func (h *hostile) speaksFor(addr string) bool {
	a := netip.MustParseAddr(addr)
	for _, x := range h.to.sad {
		for _, t := range x.RemoteTS {
			if t.First.Compare(a) <= 0 && a.Compare(t.Last) <= 0 {
				return true
			}
		}
	}
	return false
}

// What a peer's SA carries where the policy says no more is its own address: the
// one at which it has shown that it hears us, and none that it has merely written
// on its packets. Hosts of one network that know each other by certificates of one
// authority are such a policy.
func TestAddressOfSomebodyElse(t *testing.T) {
	const own, victim = "192.0.2.1:500", "192.0.2.50"
	for _, mode := range []Mode{Transport, Tunnel} {
		for name, row := range map[string]struct {
			mobike Switch
			begin  string // where IKE_AUTH comes from, if not from its own address
			play   func(h *hostile, cfg *Child)
		}{
			"IKE_AUTH from there": {Off, victim, func(*hostile, *Child) {}},
			"IKE_AUTH from there, a child from home": {On, victim, func(h *hostile, cfg *Child) {
				h.ask(own, exCreateChildSA, h.child(cfg, victim, "192.0.2.2")...)
			}},
			"a child after a move": {On, "", func(h *hostile, cfg *Child) {
				h.move(victim + ":500")
				h.ask(own, exCreateChildSA, h.child(cfg, victim, "192.0.2.2")...)
			}},
			"a child after a move, the check answered for another place": {On, "", func(h *hostile, cfg *Child) {
				h.move(victim + ":500")
				h.move(own)
				for _, sa := range h.to.sas { // it is sent again, to where the peer is now, and so it knows it
					h.run(2 * time.Second)
					h.respond(own, note(nCookie2, sa.req.task.(*routeTask).cookie...))
				}
				h.move(victim + ":500")
				h.ask(own, exCreateChildSA, h.child(cfg, victim, "192.0.2.2")...)
			}},
			"a child from there, as behind a NAT": {Off, "", func(h *hostile, cfg *Child) {
				for _, sa := range h.to.sas {
					sa.natPeer = true // it had only to say so
				}
				h.ask(victim+":4500", exCreateChildSA, h.child(cfg, victim, "192.0.2.2")...)
				h.handle(own, h.last.Data) // and asks for the answer again
			}},
		} {
			t.Run(mode.String()+" "+name, func(t *testing.T) {
				s := newSim(t, 7)
				pa, pb := pskPeers()
				pb.Endpoint, pb.RemoteID = netip.AddrPort{}, "*.example"
				pa.MOBIKE, pb.MOBIKE = row.mobike, row.mobike
				pa.Children[0].Mode, pb.Children[0].Mode = mode, mode
				if mode == Transport {
					net := []TrafficSelector{SelectorOf(netip.MustParsePrefix("192.0.2.0/24"))}
					pa.Children[0].LocalTS, pb.Children[0].RemoteTS = net, net
				}
				a, b := s.twoNodes(pa, pb)
				if row.begin != "" { // the hostile peer says the victim's address, or that a NAT writes it
					if pa.ForceEncap = mode == Transport; !pa.ForceEncap {
						pa.Children[0].LocalTS = []TrafficSelector{selectorOfHost(netip.MustParseAddr(victim))}
					}
					forged := netip.MustParseAddr(victim)
					s.nat = func(d Datagram) (Datagram, bool) {
						h, err := parseHeader(d.Data)
						if err != nil || h.exchange == exInformational {
							return d, false
						}
						if d.Local.Addr() == a.addr && h.exchange == exIKEAuth {
							d.Local = netip.AddrPortFrom(forged, d.Local.Port())
						}
						if d.Remote.Addr() == forged { // this answer it gets by asking again from home
							d.Remote = netip.AddrPortFrom(a.addr, d.Remote.Port())
						}
						return d, true
					}
				}
				s.call(a, "b", "net")
				s.run(3 * time.Second)
				s.nat = nil
				if row.begin == "" && len(s.pairs(a, b, "net")) != 1 {
					s.dump()
					t.Fatal("the honest use does not work")
				}
				h := s.turn(a, b)
				row.play(h, pb.Children[0])
				if h.speaksFor(victim) {
					s.dump()
					t.Errorf("the peer has an SA for packets of %s", victim)
				}
			})
		}
	}
}

// Whoever has moved, and has shown that it hears us where it is, has children for
// that address.
func TestAddressOfItsOwn(t *testing.T) {
	s, a, b := upTwo(t, func(a, b *Peer) {
		b.Endpoint = netip.AddrPort{}
		a.Children[0].Mode, b.Children[0].Mode = Transport, Transport
	})
	cfg := b.cfg.Peers[0].Children[0]
	h := s.turn(a, b)
	const at = "192.0.2.77"
	h.move(at + ":500")
	if m, _ := h.ask(at+":500", exCreateChildSA, h.child(cfg, at, "192.0.2.2")...); m == nil {
		t.Fatal("no answer")
	} else if ns, _ := parseNotifies(m.payloads); !ns.has(nTemporaryFailure) {
		t.Error("before it has shown that it is there, the peer is not told to try later")
	}
	for _, sa := range b.sas {
		h.respond(at+":500", note(nCookie2, sa.req.task.(*routeTask).cookie...))
	}
	h.ask(at+":500", exCreateChildSA, h.child(cfg, at, "192.0.2.2")...)
	if !h.speaksFor(at) {
		s.dump()
		t.Error("it has no child where it is")
	}
}

// What an authenticated peer says again and again, faster than it answers, is not
// planned again and again.
func TestPeerFillsNoQueue(t *testing.T) {
	for name, play := range map[string]func(h *hostile, cfg *Child){
		"moves": func(h *hostile, _ *Child) { h.move("192.0.2.77:500"); h.move("192.0.2.1:500") },
		"deletes children that have to be there": func(h *hostile, cfg *Child) {
			if m, _ := h.ask("192.0.2.2:500", exCreateChildSA, h.child(cfg, "192.0.2.2", "192.0.2.1")...); m != nil {
				h.ask("192.0.2.2:500", exInformational, deletePayload(ProtoESP, 0x01020300|uint32(byte(h.sa.nextOut-1))))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, a, b := upTwo(t, func(a, b *Peer) { a.Children[0].Start = true })
			if name != "moves" {
				a, b = b, a // the callee is hostile
			}
			h := s.turn(a, b)
			cfg := b.cfg.Peers[0].Children[0]
			for range 500 {
				play(h, cfg)
			}
			for _, sa := range b.sas {
				if n := len(sa.queue); n > 8 {
					t.Errorf("%d exchanges are planned", n)
				}
			}
			if len(b.sas) != 1 {
				t.Errorf("%d IKE SAs", len(b.sas))
			}
		})
	}
}

// Of a peer that rekeys a child without end, and deletes the old one each time, no
// more children linger than it may have.
func TestPeerRekeysWithoutEnd(t *testing.T) {
	s, a, b := upTwo(t, nil)
	cfg := b.cfg.Peers[0].Children[0]
	theirs := a.sad[a.out["net"]].SPIIn
	h := s.turn(a, b)
	for range 500 {
		spi := []byte{byte(theirs >> 24), byte(theirs >> 16), byte(theirs >> 8), byte(theirs)}
		next := 0x01020300 | uint32(byte(h.sa.nextOut))
		h.ask("192.0.2.1:500", exCreateChildSA, append(h.child(cfg, "192.0.2.1", "192.0.2.2"), notify{proto: ProtoESP, kind: nRekeySA, spi: spi}.payload())...)
		h.ask("192.0.2.1:500", exInformational, deletePayload(ProtoESP, theirs))
		theirs = next
	}
	if n := b.has(ChildRekeyed); n != 500 {
		s.dump()
		t.Fatalf("%d rekeys", n)
	}
	if n := len(b.sad); n > 65 {
		t.Errorf("%d children are there", n)
	}
	s.run(10 * time.Second)
	for _, sa := range b.sas {
		if len(b.sad) != 1 || *sa.lingers != 0 {
			t.Errorf("%d children in the end, %d are said to linger", len(b.sad), *sa.lingers)
		}
	}
}

// Who comes and goes leaves nothing behind but its lease.
func TestLeasesComeAndGo(t *testing.T) {
	l := newLeases()
	p := &Peer{Name: "p", Pools: []netip.Prefix{netip.MustParsePrefix("10.99.0.0/16")}}
	for i := range 10000 {
		id := Identity{idFQDN, string(rune('a' + i%5))}
		k, ok := l.give(loan{peer: p, id: id, holder: uint64(i + 1), want4: true})
		if !ok {
			t.Fatal("no lease")
		}
		l.release(k, uint64(i+1))
	}
	if n := len(l.freed["p"]); n > 100 {
		t.Errorf("%d notes of 5 leases", n)
	}
}

// A program that sends to every address of a network has no more calls under way than
// there are places for them, and a host that is there is called all the same.
func TestCallsOfOneNetwork(t *testing.T) {
	s := newSim(t, 7)
	pa, pb := pskPeers()
	net := []TrafficSelector{SelectorOf(netip.MustParsePrefix("0.0.0.0/0"))}
	pa.Endpoint, pa.RemoteID, pb.Endpoint = netip.AddrPort{}, "*.example", netip.AddrPort{}
	for _, ch := range []*Child{pa.Children[0], pb.Children[0]} {
		ch.Mode, ch.LocalTS, ch.RemoteTS = Transport, net, net
	}
	a, b := s.twoNodes(pa, pb)
	send := func(to netip.Addr) {
		packet := Flow{selectorOfHost(a.addr), selectorOfHost(to)}
		o, err := a.Initiate(s.now, Call{Peer: "b", Child: "net", Local: netip.AddrPortFrom(a.addr, 0), Remote: netip.AddrPortFrom(to, 0), Packet: packet})
		if err != nil {
			t.Fatal(err)
		}
		s.take(a, o)
	}
	const many = 3 * maxCalls
	to := netip.MustParseAddr("10.0.0.1")
	for i := range many {
		if i == many/2 {
			send(b.addr)
			s.run(time.Second) // in which it answers
		}
		to = to.Next()
		send(to)
	}
	if n := len(a.sas); n > maxCalls+1 {
		t.Errorf("%d calls are under way", n)
	}
	if len(s.pairs(a, b, "net")) != 1 {
		t.Error("the host that is there has not been called")
	}
	s.run(2 * time.Minute)
	if n := len(a.sas); n != 1 {
		t.Errorf("%d IKE SAs in the end", n)
	}
}

// A child that a peer was in the middle of asking for when a policy without it came
// in force is not made any more.
func TestPendingChildOfOldPolicy(t *testing.T) {
	withKEM := func(bits uint16) []Proposal {
		return []Proposal{{Protocol: ProtoESP, Transforms: []Transform{{TransformENCR, EncrAESGCM16, bits}, {TransformKE, KEX25519, 0}, {TransformADDKE, KEMLKEM768, 0}, {TransformESN, esnYes, 0}}}}
	}
	for _, rekey := range []bool{false, true} {
		s, a, b := upTwo(t, func(a, b *Peer) {
			a.Children = append(a.Children, &Child{Name: "more", Proposals: withKEM(128)})
			b.Children[0].Name = "net"
			b.Children = append(b.Children, &Child{Name: "more", Proposals: withKEM(128)})
		})
		asked := false
		stop := func(d Datagram) (Datagram, bool) {
			h, err := parseHeader(d.Data)
			asked = asked || err == nil && h.exchange == exFollowupKE
			return d, err != nil || h.exchange != exFollowupKE
		}
		if rekey {
			s.call(a, "b", "more")
			s.run(3 * time.Second)
			s.nat = stop
			s.take(a, a.Rekey(s.now, "", "more"))
		} else {
			s.nat = stop
			s.call(a, "b", "more")
		}
		s.run(500 * time.Millisecond)
		if !asked {
			s.dump()
			t.Fatal("IKE_FOLLOWUP_KE is not under way")
		}
		_, next := pskPeers()
		next.Children = append(next.Children, &Child{Name: "more", Proposals: withKEM(256)})
		o, err := b.Update(s.now, []*Peer{next})
		if err != nil {
			t.Fatal(err)
		}
		s.take(b, o)
		s.nat = nil
		s.run(20 * time.Second)
		for _, x := range b.sad {
			if x.Name == "more" {
				s.dump()
				t.Errorf("rekey %v: a child of the old policy has been made: %s", rekey, x.Encryption)
			}
		}
	}
}
