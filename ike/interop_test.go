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
