package ike

import (
	"slices"
	"testing"
	"time"
)

// The link is lost after the first, second, ... datagram of a rekey, of either kind and
// by either side, for as long as a bounce takes. One IKE SA and one pair are left, and
// nobody has given anything up.
func TestLinkBouncesInARekey(t *testing.T) {
	for _, child := range []string{"net", ""} {
		for by := range 2 {
			for k := range 5 {
				for _, gone := range []time.Duration{2 * time.Second, 15 * time.Second} {
					s, a, b := upTwo(t, nil)
					first, ike := s.pairs(a, b, "net")[0].ID, a.Status()[0].ID
					sent, back := 0, s.now.Add(gone)
					s.nat = func(d Datagram) (Datagram, bool) {
						if sent++; sent == k {
							back = s.now.Add(gone)
						}
						return d, sent <= k || !s.now.Before(back)
					}
					n := s.nodes[by]
					s.take(n, n.Rekey(s.now, "", child))
					s.run(time.Minute)
					p := s.pairs(a, b, "net")
					if len(p) != 1 || len(a.sas) != 1 || len(b.sas) != 1 || a.has(IKEDown)+b.has(IKEDown) != 0 || a.failure() != NoFailure || b.failure() != NoFailure {
						s.dump()
						t.Fatalf("%q by %s, lost for %s after %d datagrams: %d pairs, %d and %d IKE SAs", child, n.name, gone, k, len(p), len(a.sas), len(b.sas))
					}
					if (p[0].ID != first) != (child != "") || (a.Status()[0].ID != ike) != (child == "") {
						t.Errorf("%q by %s, lost for %s after %d datagrams: nothing was rekeyed, or too much", child, n.name, gone, k)
					}
				}
			}
		}
	}
}

// Deletes as others are known to send them: what nobody has is passed over, what is
// named twice ends once, and the IKE SA goes on.
func TestOddDeletes(t *testing.T) {
	for name, x := range map[string]struct {
		list func(spi, other uint32) []payload
		ends int
	}{
		"of an SPI that nobody has": {func(spi, _ uint32) []payload { return []payload{deletePayload(ProtoESP, spi+1)} }, 0},
		"of AH, for an SPI of ESP":  {func(spi, _ uint32) []payload { return []payload{deletePayload(ProtoAH, spi)} }, 0},
		"without SPIs":              {func(uint32, uint32) []payload { return []payload{deletePayload(ProtoESP)} }, 0},
		"with an SPI twice":         {func(spi, _ uint32) []payload { return []payload{deletePayload(ProtoESP, spi, spi)} }, 1},
		"twice in a message": {func(spi, _ uint32) []payload {
			return []payload{deletePayload(ProtoESP, spi), deletePayload(ProtoESP, spi)}
		}, 1},
		"beside one that nobody has":           {func(spi, _ uint32) []payload { return []payload{deletePayload(ProtoESP, spi+1, spi)} }, 1},
		"of the SPI that the other has chosen": {func(_, other uint32) []payload { return []payload{deletePayload(ProtoESP, other)} }, 0},
	} {
		s, a, b := upTwo(t, nil)
		pair := s.pairs(a, b, "net")[0]
		sa := a.theOne(t)
		a.begin(s.now)
		sa.enqueue(&infoTask{list: x.list(pair.SPIIn, pair.SPIOut)})
		a.settle(sa)
		s.take(a, a.end())
		s.run(time.Second)
		if len(a.sas) != 1 || len(b.sas) != 1 || b.has(ChildDown) != x.ends || len(b.sad) != 1-x.ends || b.failure() != NoFailure && x.ends == 0 {
			s.dump()
			t.Errorf("%s: %d and %d IKE SAs, %d children ended", name, len(a.sas), len(b.sas), b.has(ChildDown))
		}
	}
}

// A child that is rekeyed when the policy of one side has become narrower, or wider,
// has what both allow now, whoever rekeys.
func TestRekeyUnderAnotherPolicy(t *testing.T) {
	for by := range 2 {
		s, a, b := upTwo(t, netsBetween)
		theirs := b.cfg.Peers[0].Children[0]
		for _, x := range []struct{ now, want string }{{"10.2.1.0/24", "10.2.1.0/24"}, {"10.0.0.0/8", "10.2.0.0/16"}, {"10.2.0.0/16", "10.2.0.0/16"}} {
			theirs.LocalTS = ts(x.now)
			n := s.nodes[by]
			s.take(n, n.Rekey(s.now, "", "net"))
			s.run(10 * time.Second)
			p := s.pairs(a, b, "net")
			if len(p) != 1 || !slices.Equal(p[0].RemoteTS, ts(x.want)) || !slices.Equal(p[0].LocalTS, ts("10.1.0.0/16")) {
				s.dump()
				t.Fatalf("%s rekeys with %s: %d pairs, %v", n.name, x.now, len(p), p)
			}
		}
	}
}

// An answer to IKE_AUTH that proves who the peer is and says nothing of the child,
// neither that there is one nor that there is none: the IKE SA is up, the peer is told
// that we have no child, and a child that is to be there always is asked for again.
func TestAuthAnswerWithoutChild(t *testing.T) {
	for _, always := range []bool{false, true} {
		s := newSim(t, 3)
		pa, pb := pskPeers()
		pa.Children[0].Start = always
		a, b := s.twoNodes(pa, pb)
		s.nat = func(d Datagram) (Datagram, bool) {
			h, err := parseHeader(d.Data)
			if err != nil || h.exchange != exIKEAuth || !h.response() {
				return d, true
			}
			m, err := openMessage(h, d.Data, a.theOne(t).in, &reassembly{})
			if err != nil {
				t.Fatal(err)
			}
			list := slices.DeleteFunc(m.payloads, func(p payload) bool { return p.kind == plSA || p.kind == plTSi || p.kind == plTSr })
			msgs, err := sealMessage(h, list, b.theOne(t).out, 0)
			if err != nil {
				t.Fatal(err)
			}
			d.Data = msgs[0]
			return d, true
		}
		s.call(a, "b", "net")
		s.run(time.Second)
		if len(a.sas) != 1 || len(a.sad) != 0 || len(b.sad) != 0 || a.has(IKEUp) != 1 || a.failure() == NoFailure {
			s.dump()
			t.Fatalf("%d IKE SAs, %d and %d children, failure %v", len(a.sas), len(a.sad), len(b.sad), a.failure())
		}
		s.run(time.Minute)
		if got := len(s.pairs(a, b, "net")) == 1; got != always {
			s.dump()
			t.Errorf("always %v: a child: %v", always, got)
		}
	}
}
