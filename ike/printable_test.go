package ike

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode"
)

const nasty = "x \x1b[2J\x1b]0;owned\a\n00:00:00.000  ike: all is well \u202egnp.\u009b31m"

// What a peer calls itself reaches nobody's terminal as it is, whether or not the
// peer has proved it.
func TestPeersTextsArePrintable(t *testing.T) {
	der, err := asn1.Marshal(pkix.RDNSequence{{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: nasty}}})
	if err != nil {
		t.Fatal(err)
	}
	ca := newPKI(t)
	for name, f := range map[string]func(a, b *Peer){
		"DN, wrong key":      func(a, b *Peer) { a.LocalID, b.PSK = Identity{idDN, string(der)}, []byte("another pre-shared key") },
		"DN, right key":      func(a, b *Peer) { a.LocalID = Identity{idDN, string(der)} },
		"domain name":        func(a, b *Peer) { a.LocalID = Identity{idFQDN, nasty} },
		"key ID":             func(a, b *Peer) { a.LocalID = Identity{idKeyID, nasty + "\x9b\xff"} },
		"subject in the way": func(a, b *Peer) { withCerts(t, ca, a, b, "ecdsa"); nastyCert(t, ca, a); b.RemoteID = "nobody.example" },
		"subject of another": func(a, b *Peer) {
			withCerts(t, ca, a, b, "ecdsa")
			nastyCert(t, ca, a)
			a.LocalID = Identity{idFQDN, "a.example"}
		},
		"subject of nobody's": func(a, b *Peer) { withCerts(t, newPKI(t), a, b, "ecdsa"); nastyCert(t, ca, a) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSim(t, 3)
			pa, pb := pskPeers()
			pb.Endpoint, pb.RemoteID = netip.AddrPort{}, "*"
			f(pa, pb)
			b := s.add("b", "192.0.2.2", Config{Peers: []*Peer{pb}})
			if pa.LocalID.Type == idFQDN && len(pa.Certificates) > 0 {
				pa.Certificates = pa.Certificates[:1]
				keep := pa.LocalID
				pa.LocalID = Identity{} // Check wants the certificate to have it
				a := s.add("a", "192.0.2.1", Config{Peers: []*Peer{pa}})
				pa.LocalID = keep
				s.call(a, "b", "net")
			} else {
				s.call(s.add("a", "192.0.2.1", Config{Peers: []*Peer{pa}}), "b", "net")
			}
			s.run(3 * time.Second)
			if len(b.log) == 0 {
				t.Fatal("no event")
			}
			var texts []string
			for _, e := range b.log {
				texts = append(texts, e.String(), e.RemoteID.String(), e.Ours, e.Theirs, e.Nearest, e.Detail)
			}
			for _, st := range b.Status() {
				texts = append(texts, st.RemoteID.String(), st.LocalID.String())
			}
			for _, text := range texts {
				if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) || strings.ContainsRune(text, unicode.ReplacementChar) {
					t.Errorf("%q", text)
				}
			}
		})
	}
}

// nastyCert gives a certificate with an unpleasant subject and no other name.
func nastyCert(t *testing.T, ca *pki, p *Peer) {
	p.Certificates = []*x509.Certificate{ca.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: nasty}, KeyUsage: x509.KeyUsageDigitalSignature}, p.Key.Public(), ca.cert)}
	p.LocalID = Identity{}
}
