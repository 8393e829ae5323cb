package ike

import (
	"bytes"
	"crypto/sha1"
	"testing"
)

// What other daemons rely on, and two of our own would not notice.

// A peer that sends certificates only when asked is asked by the responder
// too, for the CAs of all who may call from there.
func TestResponderAsksForCertificates(t *testing.T) {
	s := newSim(t, 1)
	pa, pb := pskPeers()
	ca := newPKI(t)
	withCerts(t, ca, pa, pb, "ecdsa")
	a, _ := s.twoNodes(pa, pb)
	var asked []byte
	s.tap = func(d Datagram) {
		h, err := parseHeader(d.Data)
		if err != nil || h.exchange != exIKESAInit || !h.response() {
			return
		}
		list, _, _ := parsePayloads(h.next, d.Data[headerLen:])
		p, _ := find(list, plCERTREQ)
		asked = p.body
	}
	s.call(a, "b", "net")
	s.run(1e9)
	want := sha1.Sum(ca.cert.RawSubjectPublicKeyInfo)
	if !bytes.Equal(asked, append([]byte{certX509}, want[:]...)) {
		t.Errorf("CERTREQ is %x, want X.509 certificates of %x", asked, want)
	}
}

// An initiator that does not accept our AUTH says so and sends no Delete (RFC
// 7296 section 2.21.2).
func TestInitiatorRefusesAuth(t *testing.T) {
	s, a, b := upTwo(t, nil)
	for _, sa := range a.sas {
		sa.enqueue(&infoTask{list: []payload{note(nAuthFailed)}})
		a.settle(sa)
	}
	s.take(a, a.end())
	s.run(1e9)
	if b.Stats().SAs != 0 || len(b.sad) != 0 {
		t.Errorf("still %d IKE SAs and %d children", b.Stats().SAs, len(b.sad))
	}
	if got := b.failure(); got != WrongKeyByPeer {
		t.Errorf("reported %v, want %v", got, WrongKeyByPeer)
	}
}

// A peer that wants a key exchange for each child gets it in our rekeys, and
// one that does not want any is not asked to.
func TestRekeyWithPeersKeyExchange(t *testing.T) {
	for name, row := range map[string]struct {
		ours, theirs []Proposal
		want         string
	}{
		"they want one":         {nil, []Proposal{childProp(tGCM128, tP256, tESN)}, "aes-128-gcm-16,p-256,esn"},
		"they want none":        {nil, []Proposal{childProp(tGCM128, tESN)}, "aes-128-gcm-16,esn"},
		"we want one, if any":   {[]Proposal{childProp(tGCM128, tP256, Transform{TransformKE, KENone, 0}, tESN)}, nil, "aes-128-gcm-16,p-256,esn"},
		"both want one, or not": {[]Proposal{childProp(tGCM128, tP256, Transform{TransformKE, KENone, 0}, tESN)}, []Proposal{childProp(tGCM128, tP256, tESN)}, "aes-128-gcm-16,p-256,esn"},
		"none has any":          {[]Proposal{childProp(tGCM128, tESN)}, []Proposal{childProp(tGCM128, tESN)}, "aes-128-gcm-16,esn"},
	} {
		t.Run(name, func(t *testing.T) {
			s, a, b := upTwo(t, func(a, b *Peer) { a.Children[0].Proposals, b.Children[0].Proposals = row.ours, row.theirs })
			s.take(a, a.Rekey(s.now, "b", "net"))
			s.run(10e9)
			if len(s.pairs(a, b, "net")) != 1 || a.has(ChildRekeyed) != 1 {
				s.dump()
				t.Fatal("no rekey")
			}
			for _, e := range a.log {
				if e.Kind == ChildRekeyed && e.Suite != row.want {
					t.Errorf("rekeyed to %s, want %s", e.Suite, row.want)
				}
			}
		})
	}
}

// Raw keys are sent to who asks for them, and asked for by nobody: OpenIKED
// knows no CERT payloads of that kind.
func TestRawKeysAreNotSentUnasked(t *testing.T) {
	s := newSim(t, 1)
	pa, pb := pskPeers()
	withRawKeys(t, pa, pb, "ed25519")
	a, b := s.twoNodes(pa, pb)
	s.call(a, "b", "net")
	s.run(1e9)
	if len(s.pairs(a, b, "net")) != 1 {
		s.dump()
		t.Fatal("no child")
	}
	if got := certRequests(pa, pb); got != nil {
		t.Errorf("CERTREQ: %v", got)
	}
	for asked, want := range map[bool]int{false: 0, true: 1} {
		if got := pa.ownCerts(asked); len(got) != want {
			t.Errorf("asked %v: %d CERT payloads, want %d", asked, len(got), want)
		}
	}
	if !asksRaw([]payload{certPayload(plCERTREQ, certRawKey, nil)}) || asksRaw([]payload{certPayload(plCERTREQ, certX509, nil)}) {
		t.Error("asksRaw reads CERTREQ wrongly")
	}
}

// The key exchange that the IKE SA was made with is the one that a rekey of a
// child begins with: libreswan takes no other without an argument.
func TestRekeyGuessesTheGroupOfTheIKESA(t *testing.T) {
	s, a, b := upTwo(t, func(a, b *Peer) {
		for _, p := range []*Peer{a, b} {
			p.Proposals = []Proposal{ikeProp(tGCM128, tPRF, tP256)}
			p.Children[0].Proposals = []Proposal{childProp(tGCM128, tX25519, tP256, tESN)}
		}
	})
	s.take(a, a.Rekey(s.now, "b", "net"))
	s.run(10e9)
	if len(s.pairs(a, b, "net")) != 1 {
		t.Fatal("no pair")
	}
	for _, e := range b.log {
		if e.Kind == ChildRekeyed && e.Suite != "aes-128-gcm-16,p-256,esn" {
			t.Errorf("rekeyed to %s", e.Suite)
		}
	}
}
