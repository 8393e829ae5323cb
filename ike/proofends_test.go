package ike

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// endingCert gives a peer a certificate with an end.
func endingCert(t testing.TB, ca *pki, p *Peer, end time.Time) {
	name := p.LocalID.String()
	p.Certificates = []*x509.Certificate{ca.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		KeyUsage: x509.KeyUsageDigitalSignature, NotBefore: simStart.Add(-time.Hour), NotAfter: end}, p.Key.Public(), ca.cert)}
}

func (n *node) told(kind EventKind, text string) (k int) {
	for _, e := range n.log {
		k += btoi(e.Kind == kind && strings.Contains(e.Detail, text))
	}
	return k
}

// An IKE SA ends when the certificate of its peer does, or the list of revocations,
// whoever has called and however often it has been rekeyed. It is said before.
func TestProofEnds(t *testing.T) {
	for name, list := range map[string]bool{"certificate": false, "list of revocations": true} {
		for _, theirs := range []bool{true, false} { // whose end it is: the caller's, or the callee's
			t.Run(name, func(t *testing.T) {
				s := newSim(t, 3)
				ca := newPKI(t)
				pa, pb := pskPeers()
				withCerts(t, ca, pa, pb, "ecdsa")
				end := simStart.Add(30 * time.Hour)
				proves, asks := pa, pb
				if !theirs {
					proves, asks = pb, pa
				}
				if list {
					asks.CRLs = []*x509.RevocationList{ca.revoke(t, end)}
				} else {
					endingCert(t, ca, proves, end)
				}
				pa.Lifetime, pb.Lifetime, pa.DPD, pb.DPD = 4*time.Hour, 3*time.Hour, -1, -1
				pa.Children[0].Lifetime = 2 * time.Hour
				a, b := s.twoNodes(pa, pb)
				s.take(a, a.Start(s.now))
				s.take(b, b.Start(s.now))
				s.call(a, "b", "net")
				s.run(30*time.Hour - 20*time.Minute)
				if len(s.pairs(a, b, "net")) != 1 || a.has(IKERekeyed) < 5 {
					t.Fatalf("%d pairs, %d rekeys before the end", len(s.pairs(a, b, "net")), a.has(IKERekeyed))
				}
				x := b // who has to end it
				if !theirs {
					x = a
				}
				if n := x.told(Expires, "proves who the peer is"); n < 2 {
					t.Errorf("told %d times before the end, want 2", n)
				}
				s.run(20*time.Minute + 5*time.Second)
				if len(a.sad)+len(b.sad) != 0 || len(a.sas)+len(b.sas) != 0 {
					s.dump()
					t.Errorf("after the end: %d and %d children, %d and %d IKE SAs", len(a.sad), len(b.sad), len(a.sas), len(b.sas))
				}
				if x.Stats().Failures[BadCertificate] == 0 {
					t.Error("not counted")
				}
			})
		}
	}
}

// A peer with another certificate by then goes on, and no packet has to wait: the
// caller calls anew before the end.
func TestProofRenewed(t *testing.T) {
	s := newSim(t, 3)
	ca := newPKI(t)
	pa, pb := pskPeers()
	withCerts(t, ca, pa, pb, "ecdsa")
	endingCert(t, ca, pb, simStart.Add(30*time.Hour))
	pa.Children = append(pa.Children, &Child{Name: "other", LocalTS: []TrafficSelector{SelectorOf(netip.MustParsePrefix("10.1.0.0/16"))}, RemoteTS: []TrafficSelector{SelectorOf(netip.MustParsePrefix("10.2.0.0/16"))}})
	pb.Children = append(pb.Children, &Child{Name: "other", LocalTS: []TrafficSelector{SelectorOf(netip.MustParsePrefix("10.2.0.0/16"))}, RemoteTS: []TrafficSelector{SelectorOf(netip.MustParsePrefix("10.1.0.0/16"))}})
	a, b := s.twoNodes(pa, pb)
	s.call(a, "b", "net")
	s.call(a, "b", "other")
	s.run(29 * time.Hour)
	first := b.Status()[0].Since
	b.cfg.Peers[0].Certificates = []*x509.Certificate{ca.issue(t, "b.example", pb.Key)} // a reload would end all
	end := s.now.Add(2 * time.Hour)
	for s.step(end) {
		if a.sad[a.out["net"]] == nil || b.sad[b.out["other"]] == nil {
			s.dump()
			t.Fatal("there is a moment without a tunnel")
		}
	}
	s.now = end
	if len(s.pairs(a, b, "net")) != 1 || len(s.pairs(a, b, "other")) != 1 || len(a.sas) != 1 || len(b.sas) != 1 {
		s.dump()
		t.Fatalf("%d and %d IKE SAs", len(a.sas), len(b.sas))
	}
	if st := b.Status()[0]; !st.Since.After(first) || a.Stats().Failures[BadCertificate] != 0 || a.Stats().Up != 2 {
		t.Errorf("since %s, before since %s; %d failures, %d came up", st.Since, first, a.Stats().Failures[BadCertificate], a.Stats().Up)
	}
}

// People hear that a certificate of their own is about to end, and that it has.
func TestOwnCertificateEnds(t *testing.T) {
	s := newSim(t, 3)
	ca := newPKI(t)
	pa, pb := pskPeers()
	withCerts(t, ca, pa, pb, "ecdsa")
	endingCert(t, ca, pa, simStart.Add(30*time.Hour))
	a, _ := s.twoNodes(pa, pb)
	s.take(a, a.Start(s.now))
	s.run(5 * time.Hour)
	if n := a.told(Expires, "our own certificate"); n != 0 {
		t.Errorf("told %d times 25 hours before", n)
	}
	s.run(2 * time.Hour)
	if n := a.told(Expires, "our own certificate"); n != 1 {
		t.Errorf("told %d times 23 hours before", n)
	}
	s.run(3 * 24 * time.Hour)
	if before, after := a.told(Expires, "ends at"), a.told(Expires, "has ended at"); before != 2 || after < 2 || after > 4 {
		t.Errorf("told %d times before, %d times since", before, after)
	}
}

// authLifetime has a node say, as strongSwan does in its answer to IKE_AUTH, and later by
// itself, how long the caller's proof is good for.
func (n *node) authLifetime(s *sim, seconds uint32) {
	body := binary.BigEndian.AppendUint32(nil, seconds)
	for _, sa := range n.sas {
		if sa.state == stUp && sa.next == nil {
			n.begin(s.now)
			sa.enqueue(&infoTask{list: []payload{note(nAuthLifetime, body...)}})
			n.settle(sa)
			s.take(n, n.end())
		}
	}
}

// A gateway that wants to be shown anew who has called (AUTH_LIFETIME, RFC 4478) is
// called anew in time, by each caller whatever its policy says of starting, and no
// packet has to wait. The address that it has lent stays, and what is not there yet is
// asked for by the new IKE SA as well.
func TestAuthLifetime(t *testing.T) {
	for _, seconds := range []uint32{1, 10, 60, 3600, 10 * 3600} {
		s, gw, a, _, pa, _ := poolGateway(t)
		pa.Lifetime, pa.Children[0].Lifetime = 2*time.Hour, time.Hour
		s.call(a, "b", "net")
		s.run(time.Second)
		address, life := lent(a), max(time.Duration(seconds)*time.Second, minAuthLife)
		for round := range 3 {
			ups, oldest := a.has(IKEUp), gw.Status()[0].Since
			gw.authLifetime(s, seconds)
			end := s.now.Add(life)
			for s.step(end) {
				if x := a.sad[a.out["net"]]; x == nil || lent(a) != address || gw.sad[gw.out["net"]] == nil {
					s.dump()
					t.Fatalf("%d s: there is a moment without a tunnel, or with another address than %s: %s", seconds, address, lent(a))
				}
				onceEach(t, s, gw)
			}
			if n := a.has(IKEUp) - ups; n != 1 || len(a.sas) != 1 || len(gw.sas) != 1 || !gw.Status()[0].Since.After(oldest) {
				s.dump()
				t.Fatalf("%d s, round %d: called %d times in that time, %d and %d IKE SAs", seconds, round, n, len(a.sas), len(gw.sas))
			}
		}
		if n := a.has(IKEDown) + int(a.Stats().Failures[NoAddress]); n != 0 {
			t.Errorf("%d s: %d times something has ended", seconds, n)
		}
		// Only that once: nobody has said it of the last one.
		ups := a.has(IKEUp)
		s.run(30 * time.Hour)
		if n := a.has(IKEUp) - ups; n != 0 {
			t.Errorf("%d s: called %d times more", seconds, n)
		}
	}
}

// Whoever was called does not call because the caller says so; and nothing comes of a
// time that is none.
func TestAuthLifetimeOfTheCaller(t *testing.T) {
	s, a, b := upTwo(t, nil)
	a.authLifetime(s, 10)
	s.run(time.Minute)
	b.authLifetime(s, 0)
	s.run(time.Hour)
	if a.Stats().Up != 1 || b.Stats().Up != 1 {
		t.Errorf("%d IKE SAs came up", a.Stats().Up)
	}
}

// A gateway that is away when it is to be called anew is tried again; one that gives up
// the IKE SA is called as ever.
func TestAuthLifetimeTriedAgain(t *testing.T) {
	s, a, b := upTwo(t, func(a, b *Peer) {
		a.Retransmit = Retransmit{First: time.Second, Factor: 1, Tries: 3}
	})
	b.authLifetime(s, 3600)
	away := s.now.Add(56 * time.Minute)
	s.nat = func(d Datagram) (Datagram, bool) {
		h, err := parseHeader(d.Data)
		return d, err != nil || h.exchange != exIKESAInit || s.now.After(away)
	}
	s.run(time.Hour - time.Second)
	if a.Stats().Up != 2 || len(a.sas) != 1 || a.Stats().Failures[NoAnswer] == 0 {
		s.dump()
		t.Errorf("%d IKE SAs came up, %d are there, %d calls were not answered", a.Stats().Up, len(a.sas), a.Stats().Failures[NoAnswer])
	}
	s.pairs(a, b, "net")
}
