package ike

import (
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"strings"
	"testing"
)

// However many ike blocks a claim may be for, its chain is verified once for
// each set of CAs, and not at all for who has not the key of its certificate.
func TestChainOnce(t *testing.T) {
	ca, other, key := newPKI(t), newPKI(t), newKey(t, "ecdsa")
	cert := ca.issue(t, "a.example", key)
	octets := []byte("what AUTH covers")
	method, auth, err := sign(key, octets, ourHashes, testRand(1))
	if err != nil {
		t.Fatal(err)
	}
	again, err := x509.ParseCertificate(other.cert.Raw) // as another block has read it
	if err != nil {
		t.Fatal(err)
	}
	c := &claim{id: Identity{idFQDN, "a.example"}, method: method, auth: auth, certs: [][]byte{cert.Raw}, octets: octets}
	block := func(cas ...*x509.Certificate) *Peer { return &Peer{RemoteID: "*", CAs: cas} }
	for i := range 16 {
		p := block(other.cert)
		if i%2 == 1 {
			p = block(again)
		}
		if fail := p.verifyPeer(c, PRFSHA256, simStart); fail == nil || fail.why != BadCertificate {
			t.Fatalf("block %d: %v", i, fail)
		}
	}
	if len(c.shown.chains) != 1 {
		t.Errorf("%d chains were built for one CA", len(c.shown.chains))
	}
	// Another CA, and another revocation list, is another question.
	if fail := block(ca.cert).verifyPeer(c, PRFSHA256, simStart); fail != nil {
		t.Error(fail)
	}
	revoking := block(ca.cert)
	revoking.CRLs = []*x509.RevocationList{ca.revoke(t, simStart.AddDate(0, 0, 1), cert)}
	if fail := revoking.verifyPeer(c, PRFSHA256, simStart); fail == nil || !strings.Contains(fail.text, "revoked") {
		t.Error(fail)
	}
	c.shown, c.auth = nil, auth[:len(auth)-1]
	if fail := block(ca.cert).verifyPeer(c, PRFSHA256, simStart); fail == nil || fail.why != WrongKey || len(c.shown.chains) != 0 {
		t.Errorf("%v, %d chains for a wrong signature", fail, len(c.shown.chains))
	}
}

// What is shown is bounded before it is read.
func TestShown(t *testing.T) {
	ca, key := newPKI(t), newKey(t, "ecdsa")
	leaf := ca.issue(t, "a.example", key).Raw
	var names []string
	for i := range 1500 {
		names = append(names, fmt.Sprintf("one-of-many-names-%d.example", i))
	}
	big := ca.sign(t, &x509.Certificate{DNSNames: names}, key.Public(), ca.cert).Raw
	long := ca.sign(t, &x509.Certificate{DNSNames: names[:1]}, &rsa.PublicKey{N: newLongKey(t, 4097).pub.N, E: 3}, ca.cert).Raw
	for text, list := range map[string][][]byte{
		"6 certificates, 5 are allowed":            {leaf, leaf, leaf, leaf, leaf, leaf},
		"bytes together, 32768 are allowed":        {leaf, big},
		"RSA key of 4097 bits, at most 4096":       {long},
		"RSA key of 4097 bits, at most 4096 are t": {leaf, ca.cert.Raw, long},
		"malformed": {leaf[1:], leaf},
	} {
		if w := readShown(list); w.err == nil || !strings.Contains(w.err.Error(), text) {
			t.Errorf("%v, want %q", w.err, text)
		}
	}
	if w := readShown([][]byte{leaf, leaf[1:], ca.cert.Raw}); w.err != nil || len(w.certs) != 2 {
		t.Errorf("a CA's certificate that cannot be read: %v", w.err)
	}
}

// A policy is told of keys that would be refused.
func TestLongKeysOfPolicy(t *testing.T) {
	ca := newPKI(t)
	long := newLongKey(t, 8192)
	pa, pb := pskPeers()
	withCerts(t, ca, pa, pb, "ecdsa")
	for text, change := range map[string]func(p *Peer){
		"ca CN=test: RSA key of 8192 bits, at most 4096 are taken: make a CA": func(p *Peer) {
			p.CAs = append(p.CAs, &x509.Certificate{Subject: pkix.Name{CommonName: "test"}, PublicKey: long.Public()})
		},
		"certificate of CN=test: RSA key of 8192 bits": func(p *Peer) {
			p.Certificates = append(p.Certificates, &x509.Certificate{Subject: pkix.Name{CommonName: "test"}, PublicKey: long.Public()})
		},
		"private key: RSA key of 8192 bits": func(p *Peer) { p.Key, p.Certificates = long, nil },
	} {
		p := *pa
		change(&p)
		if err := p.Check(); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v, want %q", err, text)
		}
	}
}
