package ike

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// A peer that has authenticated says what comes to its mind, in any order, while this
// side rekeys, deletes, reloads and asks. Whatever it says, the Core asks of its SAD
// only what can be done (see sim.take), and keeps no more than it may.
func TestHostileAtRandom(t *testing.T) {
	rounds := 300
	if testing.Short() {
		rounds = 60
	}
	for seed := range uint64(rounds) {
		playHostile(t, seed)
	}
}

func playHostile(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 2))
	kem := []Proposal{childProp(tGCM256, tX25519, tKEM, tESN)}
	policies := func(n int) *Peer {
		_, p := pskPeers()
		p.Children = append(p.Children, &Child{Name: "more", Proposals: kem, Start: n == 2}, &Child{Name: "way", Mode: Transport})
		switch n {
		case 1:
			p.Children = p.Children[1:]
		case 2:
			p.Children[0].Lifetime = time.Minute
		}
		return p
	}
	s := newSim(t, seed)
	pa, _ := pskPeers()
	pa.Children = append(pa.Children, &Child{Name: "more", Proposals: kem}, &Child{Name: "way", Mode: Transport})
	a, b := s.add("a", "192.0.2.1", Config{Peers: []*Peer{pa}}), s.add("b", "192.0.2.2", Config{Peers: []*Peer{policies(rng.IntN(3))}})
	called := rng.IntN(2) == 0
	if called {
		s.call(b, "a", "more")
	} else {
		s.call(a, "b", "more")
	}
	s.run(3 * time.Second)
	if len(a.sas) == 0 || len(b.sas) == 0 {
		t.Fatalf("seed %d: no IKE SA", seed)
	}
	h := s.turn(a, b)
	addrs := []string{"192.0.2.1:500", "192.0.2.1:4500", "192.0.2.50:500", "198.51.100.9:4500"}
	spis := func() (out []uint32) {
		for _, x := range b.sad {
			out = append(out, x.SPIOut, x.SPIIn)
		}
		return append(out, rng.Uint32())
	}
	some := func(n int) []byte {
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
		return p
	}
	create := func() []payload {
		cfgs := b.cfg.Peers[0].Children
		cfg := cfgs[rng.IntN(len(cfgs))]
		props := cfg.proposals()
		p := props[rng.IntN(len(props))]
		p.spi = some(4)
		list := []payload{saPayload([]Proposal{p}), {kind: plNonce, body: some(16 + rng.IntN(40))},
			tsPayload(plTSi, []TrafficSelector{selectorOfHost(netip.MustParseAddrPort(addrs[rng.IntN(4)]).Addr())}),
			tsPayload(plTSr, []TrafficSelector{selectorOfHost(b.addr)})}
		if kx, err := (kexSource{rand: testRand(rng.Uint64())}).start(KEX25519); err == nil {
			list = append(list, kePayload(KEX25519, kx.public()))
		}
		if cfg.Mode == Transport || rng.IntN(8) == 0 {
			list = append(list, note(nUseTransport))
		}
		if rng.IntN(2) == 0 {
			all := spis()
			v := all[rng.IntN(len(all))]
			list = append(list, notify{proto: ProtoESP, kind: nRekeySA, spi: []byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}}.payload())
		}
		return list
	}
	var asked Datagram // the last request of this side
	s.tap = func(d Datagram) {
		if x, err := parseHeader(d.Data); err == nil && !x.response() && d.Local.Addr() == b.addr {
			asked = d
		}
	}
	// agree answers the request as an honest peer would.
	agree := func() (list []payload) {
		x, err := parseHeader(asked.Data)
		if err != nil {
			return nil
		}
		m, err := openMessage(x, asked.Data, h.sa.in, &reassembly{})
		if err != nil {
			return nil // of another IKE SA
		}
		for _, p := range m.payloads {
			switch p.kind {
			case plSA:
				props, _ := parseSA(p.body)
				one, seen := props[0], map[uint8]bool{}
				one.Transforms = nil
				for _, t := range props[0].Transforms {
					if !seen[t.Type] {
						one.Transforms = append(one.Transforms, t)
					}
					seen[t.Type] = true
				}
				one.spi = some(len(one.spi))
				list = append(list, saPayload([]Proposal{one}))
			case plKE:
				group, public, _ := parseKE(p.body)
				ours, _, _ := kexSource{rand: testRand(rng.Uint64())}.respond(group, public)
				list = append(list, kePayload(group, ours))
			case plNonce:
				list = append(list, payload{kind: plNonce, body: some(32)})
			case plTSi, plTSr:
				list = append(list, p)
			case plNotify:
				if n, err := parseNotify(p.body); err == nil && (n.kind == nUseTransport || n.kind == nCookie2 || n.kind == nAdditionalKE) {
					list = append(list, p)
				}
			}
		}
		if m.exchange == exCreateChildSA && rng.IntN(2) == 0 {
			list = append(list, note(nAdditionalKE, some(16)...))
		}
		return list
	}
	kinds := []uint16{nNoAdditionalSAs, nTemporaryFailure, nChildSANotFound, nStateNotFound, nInvalidKEPayload, nTSUnacceptable, nNoProposalChosen, nUpdateSAAddrs, nCookie2, nAdditionalKE, nNATSource, nNATDest, nInitialContact}
	for range 120 {
		from := addrs[max(0, rng.IntN(8)-4)]
		switch rng.IntN(24) {
		case 0, 1, 2, 3:
			h.ask(from, exCreateChildSA, create()...)
		case 4, 5:
			all := spis()
			h.ask(from, exInformational, deletePayload(ProtoESP, all[rng.IntN(len(all))], all[rng.IntN(len(all))]))
		case 6:
			h.ask(from, exInformational, note(kinds[rng.IntN(len(kinds))], some(rng.IntN(20))...), note(nUpdateSAAddrs))
		case 7: // the rekey of the IKE SA, whose keys it throws away
			if rng.IntN(8) != 0 {
				break
			}
			kx, _ := (kexSource{rand: testRand(rng.Uint64())}).start(KEX25519)
			p := h.sa.suite.proposal()
			p.spi = some(8)
			h.ask(from, exCreateChildSA, saPayload([]Proposal{p}), payload{kind: plNonce, body: some(32)}, kePayload(KEX25519, kx.public()))
		case 8:
			kx, _ := (kexSource{rand: testRand(rng.Uint64())}).start(KEMLKEM768)
			link := some(16)
			for _, sa := range b.sas {
				if sa.pending != nil {
					link = sa.pending.link
				}
			}
			h.ask(from, exFollowupKE, kePayload(KEMLKEM768, kx.public()), note(nAdditionalKE, link...))
		case 9, 10:
			h.respond(from, note(kinds[rng.IntN(len(kinds))], some(rng.IntN(20))...))
		case 11:
			h.respond(from)
		case 12:
			h.respond(from, agree()...)
		case 13:
			h.respond(from, create()...)
		case 14:
			s.take(b, b.Rekey(s.now, "", []string{"", "more", "net"}[rng.IntN(3)]))
		case 15:
			for id := range b.sad {
				s.take(b, b.DeleteChild(s.now, id))
				break
			}
		case 16:
			o, err := b.Update(s.now, []*Peer{policies(rng.IntN(3))})
			if err != nil {
				t.Fatal(err)
			}
			s.take(b, o)
		case 17:
			for _, x := range b.sad {
				s.take(b, b.Roamed(s.now, x.SPIIn, netip.AddrPortFrom(b.addr, 4500), netip.MustParseAddrPort(from)))
				s.take(b, b.Seen(s.now, x.SPIIn))
				break
			}
		case 18:
			h.handle(from, h.last.Data)
		case 19, 20:
			h.respond(from, agree()...)
		case 21:
			if o, err := b.Initiate(s.now, Call{Peer: "a", Child: []string{"net", "more", "way"}[rng.IntN(3)], Local: netip.AddrPortFrom(b.addr, 0)}); err == nil {
				s.take(b, o)
			}
		case 22:
			for id := range b.sad {
				s.take(b, b.RekeyChild(s.now, id))
				break
			}
		case 23:
			s.run(time.Duration(rng.Int64N(int64(20 * time.Second))))
		}
		for _, sa := range b.sas {
			if len(sa.queue) > 32 || len(sa.children) > 64 {
				s.dump()
				t.Fatalf("seed %d: %d exchanges planned, %d children", seed, len(sa.queue), len(sa.children))
			}
		}
		if len(b.sas) > 24 || len(b.sad) > 160 {
			s.dump()
			t.Fatalf("seed %d: %d IKE SAs, %d children", seed, len(b.sas), len(b.sad))
		}
	}
	// It says no more. What it had ends.
	o, err := b.Update(s.now, []*Peer{policies(1)})
	if err != nil {
		t.Fatal(err)
	}
	s.take(b, o)
	s.run(30 * time.Minute)
	reserved := 0
	for _, ch := range b.spis {
		if ch == nil {
			reserved++
		}
	}
	if len(b.sad) != 0 || len(b.going) != 0 || reserved != 0 || len(b.expected) != 0 {
		s.dump()
		t.Fatalf("seed %d: of a peer that is silent there are %d children, %d that linger, %d SPIs reserved, %d expected, %d IKE SAs", seed, len(b.sad), len(b.going), reserved, len(b.expected), len(b.sas))
	}
}
