package ike

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

var tKEMAlone = Transform{Type: TransformKE, ID: KEMLKEM768}

// ML-KEM-768 is a key exchange by itself too: of IKE_SA_INIT, with and without a
// cookie, of children in a rekey, and of a rekeyed IKE SA.
func TestMLKEMAlone(t *testing.T) {
	for name, limits := range map[string]Limits{"": {}, "with a cookie": cookies} {
		bothWays(t, name, func(t *testing.T, jobs int) {
			s := newSim(t, 1)
			s.jobs = jobs
			pa, pb := pskPeers()
			for _, p := range []*Peer{pa, pb} {
				p.Proposals = []Proposal{ikeProp(tGCM128, tPRF, tKEMAlone)}
				p.Children[0].Proposals = []Proposal{childProp(tGCM128, tKEMAlone, tNoESN)}
			}
			longest := 0
			s.tap = func(d Datagram) {
				if h, _ := parseHeader(d.Data); h.exchange == exIKESAInit {
					longest = max(longest, len(d.Data))
				}
			}
			a := s.add("a", "192.0.2.1", Config{Peers: []*Peer{pa}})
			b := s.add("b", "192.0.2.2", Config{Peers: []*Peer{pb}, Limits: limits})
			s.call(a, "b", "net")
			s.run(5 * time.Second)
			if len(s.pairs(a, b, "net")) != 1 || !strings.HasSuffix(a.Status()[0].Suite, ",ml-kem-768") {
				s.dump()
				t.Fatal("not up with ML-KEM")
			}
			if room := 1500 - 20 - 8; longest > room || longest < 1184 {
				t.Errorf("IKE_SA_INIT has %d bytes, and IKE cannot cut it: %d fit an Ethernet", longest, room)
			}
			s.take(b, b.Rekey(s.now, "a", "net"))
			s.run(5 * time.Second)
			s.take(b, b.Rekey(s.now, "a", ""))
			s.run(5 * time.Second)
			if len(s.pairs(a, b, "net")) != 1 || a.has(ChildRekeyed) == 0 || a.has(IKERekeyed) == 0 {
				s.dump()
				t.Error("not rekeyed")
			}
		})
	}
}

// A key that FIPS 203 section 7.2 calls invalid, and one of another length, are
// dropped; nothing is made or answered for them.
func TestMLKEMBadKey(t *testing.T) {
	for name, spoil := range map[string]func(ke []byte) []byte{
		"out of range": func(ke []byte) []byte { ke[0], ke[1] = 0xff, 0xff; return ke },
		"short":        func(ke []byte) []byte { return ke[:len(ke)-1] },
		"empty":        func(ke []byte) []byte { return ke[:0] },
	} {
		bothWays(t, name, func(t *testing.T, jobs int) {
			s := newSim(t, 1)
			s.jobs = jobs
			pa, pb := pskPeers()
			pa.Proposals = []Proposal{ikeProp(tGCM128, tPRF, tKEMAlone)}
			pb.Proposals = pa.Proposals
			a, b := s.twoNodes(pa, pb)
			answers := 0
			s.nat = func(d Datagram) (Datagram, bool) {
				h, _ := parseHeader(d.Data)
				if h.response() {
					answers++
					return d, true
				}
				list, _, err := parsePayloads(h.next, d.Data[headerLen:])
				if err != nil {
					t.Fatal(err)
				}
				for i, p := range list {
					if p.kind == plKE {
						list[i].body = append(p.body[:4:4], spoil(append([]byte(nil), p.body[4:]...))...)
					}
				}
				d.Data = encodePlain(h, list)
				return d, true
			}
			s.call(a, "b", "net")
			s.run(10 * time.Second)
			if answers != 0 || len(b.sas)+len(b.inits)+b.guard.total != 0 || b.Stats().Dropped == 0 || b.Stats().Failures[BadRandomness] != 0 {
				t.Errorf("%d answers, %d IKE SAs, %d dropped", answers, len(b.sas), b.Stats().Dropped)
			}
		})
	}
}

// Who answers in the responder's place that it wants a weaker key exchange gets
// none of it: the responder insists on the stronger one that both have. Between
// such that are no stronger the caller's first choice counts.
func TestWeakerGroupByOthers(t *testing.T) {
	modp := Transform{Type: TransformKE, ID: KEMODP2048}
	for name, row := range map[string]struct {
		strong, weak Transform
		up           bool
	}{
		"ML-KEM and X25519":    {tKEMAlone, tX25519, false},
		"X25519 and MODP-2048": {tX25519, modp, false},
		"X25519 and P-384":     {tX25519, tP384, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSim(t, 1)
			pa, pb := pskPeers()
			pa.Proposals = []Proposal{ikeProp(tGCM128, tPRF, row.strong, row.weak)}
			pb.Proposals = pa.Proposals
			a, b := s.twoNodes(pa, pb)
			s.nat = func(d Datagram) (Datagram, bool) {
				h, _ := parseHeader(d.Data)
				list, _, err := parsePayloads(h.next, d.Data[headerLen:])
				if h.exchange != exIKESAInit || h.response() || err != nil {
					return d, true
				}
				if ke, _ := find(list, plKE); uint16(ke.body[0])<<8|uint16(ke.body[1]) != row.strong.ID {
					return d, true
				}
				lie := encodePlain(header{spiI: h.spiI, exchange: exIKESAInit, flags: flagResponse}, []payload{note(nInvalidKEPayload, byte(row.weak.ID>>8), byte(row.weak.ID))})
				s.fly(Datagram{Local: d.Remote, Remote: d.Local, Data: lie})
				return d, false
			}
			s.call(a, "b", "net")
			s.run(5 * time.Minute)
			if up := a.has(IKEUp)+b.has(IKEUp) != 0; up != row.up {
				s.dump()
				t.Errorf("up: %v", up)
			}
		})
	}
	// Whoever has nothing stronger is served with what it has.
	s := newSim(t, 1)
	pa, pb := pskPeers()
	pa.Proposals = []Proposal{ikeProp(tGCM128, tPRF, tX25519)}
	pb.Proposals, pb.Endpoint = []Proposal{ikeProp(tGCM128, tPRF, tKEMAlone, tX25519)}, netip.AddrPort{}
	a, b := s.twoNodes(pa, pb)
	s.call(a, "b", "net")
	s.run(5 * time.Second)
	if len(s.pairs(a, b, "net")) != 1 {
		t.Error("a caller with X25519 alone is not let in")
	}
}
