package ike

import (
	"net/netip"
	"testing"
	"time"
)

// ts is a list of one selector.
func ts(prefix string) []TrafficSelector {
	return []TrafficSelector{SelectorOf(netip.MustParsePrefix(prefix))}
}

// theOne is the one IKE SA of a node.
func (n *node) theOne(t *testing.T) *ikeSA {
	t.Helper()
	if len(n.sas) != 1 {
		t.Fatalf("%s has %d IKE SAs", n.name, len(n.sas))
	}
	for _, sa := range n.sas {
		return sa
	}
	return nil
}

// answerWith keeps a request of n from its peer; it gets the answer given, under
// the peer's keys.
func (s *sim) answerWith(n, peer *node, o Output, list ...payload) Output {
	s.t.Helper()
	if len(o.Send) != 1 {
		s.t.Fatalf("%d datagrams, want one request", len(o.Send))
	}
	h, err := parseHeader(o.Send[0].Data)
	if err != nil || h.response() {
		s.t.Fatalf("not a request: %v", err)
	}
	var far *ikeSA
	for _, sa := range peer.sas {
		if sa.spiI == h.spiI {
			far = sa
		}
	}
	msgs, err := sealMessage(far.header(h.exchange, h.id, true), list, far.out, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	s.take(n, Output{Actions: o.Actions, Events: o.Events})
	return n.Handle(s.now, Datagram{Local: o.Send[0].Local, Remote: o.Send[0].Remote, Data: msgs[0]})
}

// An error answer that says that the two sides do not have the same state ends
// the IKE SA at once, with an event that says so, and begins another where one
// must be; other refusals leave it (RFC 7296 sections 2.21.3 and 3.10.1).
func TestErrorAnswers(t *testing.T) {
	rekey := func(child string) func(s *sim, n *node) Output {
		return func(s *sim, n *node) Output { return n.Rekey(s.now, "", child) }
	}
	drop := func(s *sim, n *node) Output { return n.Terminate(s.now, "b", "net") }
	probe := func(s *sim, n *node) Output {
		s.now = s.now.Add(defaultDPD)
		return n.Tick(s.now)
	}
	for name, row := range map[string]struct {
		ask  func(*sim, *node) Output
		kind uint16
		ends bool
	}{
		"rekey of the child, INVALID_SYNTAX":    {rekey("net"), nInvalidSyntax, true},
		"rekey of the IKE SA, INVALID_SYNTAX":   {rekey(""), nInvalidSyntax, true},
		"delete of the child, INVALID_SYNTAX":   {drop, nInvalidSyntax, true},
		"probe, INVALID_SYNTAX":                 {probe, nInvalidSyntax, true},
		"probe, an error nobody knows":          {probe, 8000, true},
		"probe, TEMPORARY_FAILURE":              {probe, nTemporaryFailure, false},
		"rekey, UNSUPPORTED_CRITICAL_PAYLOAD":   {rekey("net"), nUnsupportedCritical, true},
		"rekey, AUTHENTICATION_FAILED":          {rekey("net"), nAuthFailed, true},
		"rekey, INVALID_IKE_SPI":                {rekey(""), nInvalidIKESPI, true},
		"rekey of the child, NO_ADDITIONAL_SAS": {rekey("net"), nNoAdditionalSAs, true},
		"rekey of the child, an unknown error":  {rekey("net"), 8000, false},
		"rekey of the child, NO_PROPOSAL":       {rekey("net"), nNoProposalChosen, false},
		"delete of a child that is gone":        {drop, nChildSANotFound, false},
	} {
		t.Run(name, func(t *testing.T) {
			s, a, b := upTwo(t, func(pa, _ *Peer) { pa.Children[0].Start = true })
			before := a.theOne(t).mine()
			a.log, b.log = nil, nil
			s.take(a, s.answerWith(a, b, row.ask(s, a), note(row.kind)))
			if _, there := a.sas[before]; there == row.ends {
				t.Fatalf("the IKE SA is there: %v", there)
			}
			s.run(3 * time.Second)
			if row.ends {
				if a.failure() != RefusedByPeer && a.failure() != WrongKeyByPeer || a.has(IKEDown) != 1 {
					s.dump()
					t.Error("no event says why it ended")
				}
				// The Delete, which RFC 7296 does without, finds a peer that has not ended it.
				if b.has(IKEDown) != 1 {
					t.Error("a peer that lives has not heard of it")
				}
				s.run(10 * time.Second)
				if len(s.pairs(a, b, "net")) != 1 || len(a.sas) != 1 || a.theOne(t).mine() == before {
					s.dump()
					t.Error("nothing has taken its place")
				}
			}
			if len(a.expected) != 0 || len(b.expected) != 0 {
				t.Error("SPIs are waited for")
			}
		})
	}
}

// Whoever answers INVALID_SYNTAX ends the IKE SA, as its peer does on hearing
// it: else one side would go on alone until it probes.
func TestInvalidSyntaxEndsBothSides(t *testing.T) {
	for name, row := range map[string]struct {
		exchange uint8
		list     []payload
	}{
		"CREATE_CHILD_SA without a nonce":    {exCreateChildSA, []payload{tsPayload(plTSi, ts("10.0.0.0/8"))}},
		"a rekey of the IKE SA of nothing":   {exCreateChildSA, nil},
		"a Delete that is cut off":           {exInformational, []payload{{kind: plDelete, body: []byte{ProtoESP, 4, 0}}}},
		"an exchange that nobody has agreed": {99, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s, a, b := upTwo(t, nil)
			sa := a.theOne(t)
			msgs, err := sealMessage(sa.header(row.exchange, sa.nextOut, false), row.list, sa.out, 0)
			if err != nil {
				t.Fatal(err)
			}
			b.log = nil
			o := b.Handle(s.now, Datagram{Local: sa.remote, Remote: sa.local, Data: msgs[0]})
			s.take(b, o)
			if len(o.Send) != 1 || len(b.sas) != 0 || len(b.sad) != 0 || b.failure() != Malformed {
				s.dump()
				t.Errorf("%d answers, %d IKE SAs, %d children, %v", len(o.Send), len(b.sas), len(b.sad), b.failure())
			}
		})
	}
}

// A child that was asked for when its IKE SA ended is not forgotten.
func TestRequestUnderWayIsNotForgotten(t *testing.T) {
	s, a, b := upTwo(t, func(pa, pb *Peer) {
		pa.Children = append(pa.Children, &Child{Name: "more", Start: true, LocalTS: ts("10.1.0.0/16"), RemoteTS: ts("10.2.0.0/16")})
		pb.Children = append(pb.Children, &Child{Name: "more", LocalTS: ts("10.2.0.0/16"), RemoteTS: ts("10.1.0.0/16")})
	})
	o, err := a.Initiate(s.now, Call{Peer: "b", Child: "more", Local: netip.AddrPortFrom(a.addr, 0)})
	if err != nil {
		t.Fatal(err)
	}
	s.take(a, s.answerWith(a, b, o, note(nInvalidSyntax)))
	s.run(20 * time.Second)
	if len(s.pairs(a, b, "more")) != 1 {
		s.dump()
		t.Error("it is never made")
	}
}

// A request of the responder that overtakes its answer to IKE_AUTH is no breach of
// the protocol: it is dropped, and comes again when the IKE SA is up.
func TestRequestOvertakesAuth(t *testing.T) {
	s := newSim(t, 7)
	pa, pb := pskPeers()
	a, b := s.twoNodes(pa, pb)
	s.call(a, "b", "net")
	for len(b.sad) == 0 {
		s.step(s.now.Add(time.Minute))
	}
	answer := s.wire // IKE_AUTH
	s.wire = nil
	s.take(b, b.Rekey(s.now, "", "net"))
	for len(s.wire) > 0 {
		s.step(s.now.Add(time.Second))
	}
	if len(a.sas) != 1 || len(b.sas) != 1 {
		s.dump()
		t.Fatal("the request has ended the IKE SA")
	}
	for i := range answer {
		answer[i].at = s.now
	}
	s.wire = append(s.wire, answer...)
	s.run(20 * time.Second)
	if len(s.pairs(a, b, "net")) != 1 || a.has(ChildRekeyed) != 1 || a.failure() != NoFailure || b.failure() != NoFailure {
		s.dump()
		t.Error("not as if nothing had happened")
	}
}

// Deletes of the IKE SA that cross end it on both sides at once: each answers the
// other's, and nobody waits for the answer to his own, which a peer that forgets
// on the spot does not give (RFC 7296 section 1.4.1).
func TestDeletesCross(t *testing.T) {
	for _, silent := range []bool{false, true} {
		for _, child := range []string{"", "net"} {
			s, a, b := upTwo(t, func(pa, pb *Peer) { pb.Endpoint = netip.AddrPort{} })
			bSA := b.theOne(t)
			mine, theirs := a.Terminate(s.now, "b", child), b.Terminate(s.now, "", child)
			s.take(a, Output{Actions: mine.Actions, Events: mine.Events})
			if !silent {
				s.take(a, mine)
			}
			answered := false
			s.tap = func(d Datagram) {
				h, err := parseHeader(d.Data)
				answered = answered || err == nil && h.response() && h.spiI == bSA.spiI && d.Local.Addr() == a.addr
			}
			s.take(b, theirs)
			start := s.now
			s.run(100 * time.Millisecond) // less than the first retransmission
			if child == "" && len(a.sas)+len(b.sas) > 0 || len(a.sad)+len(b.sad) > 0 {
				t.Errorf("silent %v, %q: %d and %d IKE SAs and %d and %d children are left after %s", silent, child, len(a.sas), len(b.sas), len(a.sad), len(b.sad), s.now.Sub(start))
			}
			if !answered {
				t.Errorf("silent %v, %q: the other's Delete was not answered", silent, child)
			}
		}
	}
}
