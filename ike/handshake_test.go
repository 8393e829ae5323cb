package ike

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func ikeProp(t ...Transform) Proposal   { return Proposal{Protocol: ProtoIKE, Transforms: t} }
func childProp(t ...Transform) Proposal { return Proposal{Protocol: ProtoESP, Transforms: t} }

var (
	tGCM128  = Transform{TransformENCR, EncrAESGCM16, 128}
	tGCM256  = Transform{TransformENCR, EncrAESGCM16, 256}
	tChaCha  = Transform{TransformENCR, EncrChaCha20, 0}
	tCBC256  = Transform{TransformENCR, EncrAESCBC, 256}
	tHMAC    = Transform{TransformINTEG, IntegSHA256, 0}
	tHMAC512 = Transform{TransformINTEG, IntegSHA512, 0}
	tPRF     = Transform{TransformPRF, PRFSHA256, 0}
	tPRF512  = Transform{TransformPRF, PRFSHA512, 0}
	tX25519  = Transform{TransformKE, KEX25519, 0}
	tP256    = Transform{TransformKE, KEP256, 0}
	tP384    = Transform{TransformKE, KEP384, 0}
	tModp    = Transform{TransformKE, KEMODP2048, 0}
	tKEM     = Transform{TransformADDKE, KEMLKEM768, 0}
	tKEM3    = Transform{TransformADDKE + 2, KEMLKEM768, 0}
	tESN     = Transform{TransformESN, esnYes, 0}
	tNoESN   = Transform{TransformESN, esnNo, 0}
)

// pki is a certificate authority of the test.
type pki struct {
	key  crypto.Signer
	cert *x509.Certificate
	n    int64
}

func newPKI(t testing.TB) *pki { t.Helper(); return newNamedPKI(t, "test CA") }

func newNamedPKI(t testing.TB, name string) *pki {
	t.Helper()
	p := &pki{key: newKey(t, "ecdsa")}
	p.cert = p.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SubjectKeyId: []byte{1}}, p.key.Public(), nil)
	return p
}

func (p *pki) sign(t testing.TB, c *x509.Certificate, pub crypto.PublicKey, parent *x509.Certificate) *x509.Certificate {
	t.Helper()
	p.n++
	c.SerialNumber = big.NewInt(p.n)
	if c.NotAfter.IsZero() {
		c.NotBefore, c.NotAfter = simStart.Add(-time.Hour), simStart.Add(1000*time.Hour)
	}
	if parent == nil {
		parent = c
	}
	b, err := x509.CreateCertificate(rand.Reader, c, parent, pub, p.key)
	if err != nil {
		t.Fatal(err)
	}
	x, err := x509.ParseCertificate(b)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func (p *pki) issue(t testing.TB, name string, key crypto.Signer) *x509.Certificate {
	return p.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		KeyUsage: x509.KeyUsageDigitalSignature}, key.Public(), p.cert)
}

func (p *pki) revoke(t testing.TB, until time.Time, certs ...*x509.Certificate) *x509.RevocationList {
	t.Helper()
	l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: simStart.Add(-time.Hour), NextUpdate: until}
	for _, c := range certs {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: simStart.Add(-time.Minute)})
	}
	b, err := x509.CreateRevocationList(rand.Reader, l, p.cert, p.key)
	if err != nil {
		t.Fatal(err)
	}
	x, err := x509.ParseRevocationList(b)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func newKey(t testing.TB, kind string) crypto.Signer {
	t.Helper()
	var k crypto.Signer
	var err error
	switch kind {
	case "ecdsa":
		k, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ecdsa384":
		k, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ecdsa521":
		k, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "ed25519":
		_, k, err = ed25519.GenerateKey(rand.Reader)
	case "rsa":
		k, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// withCerts makes both peers authenticate with certificates of one CA.
func withCerts(t testing.TB, p *pki, a, b *Peer, kind string) {
	for _, x := range []*Peer{a, b} {
		x.PSK, x.Key, x.CAs = nil, newKey(t, kind), []*x509.Certificate{p.cert}
		x.Certificates = []*x509.Certificate{p.issue(t, x.LocalID.String(), x.Key)}
	}
}

func withRawKeys(t testing.TB, a, b *Peer, kind string) {
	a.PSK, b.PSK = nil, nil
	a.Key, b.Key = newKey(t, kind), newKey(t, kind)
	a.PublicKeys = map[string]crypto.PublicKey{"b.example": b.Key.Public()}
	b.PublicKeys = map[string]crypto.PublicKey{"a.example": a.Key.Public(), "other.example": b.Key.Public()}
}

// Handshakes that must work. Each ends with one pair on both sides.
func TestHandshakes(t *testing.T) {
	ca := newPKI(t)
	plain := func(p *Peer) { p.Proposals = []Proposal{ikeProp(tGCM128, tPRF, tX25519)} }
	both := func(f func(p *Peer)) func(a, b *Peer) { return func(a, b *Peer) { f(a); f(b) } }
	prop := func(l ...Proposal) func(a, b *Peer) { return both(func(p *Peer) { p.Proposals = l }) }
	for name, row := range map[string]struct {
		change func(a, b *Peer)
		want   string // of the IKE suite, or the mode and suite of the child
	}{
		"default is hybrid":            {func(a, b *Peer) {}, "x25519+ml-kem-768"},
		"peer without ML-KEM":          {func(a, b *Peer) { plain(b) }, "aes-128-gcm-16,prf-hmac-sha2-256,x25519"},
		"caller without ML-KEM":        {func(a, b *Peer) { plain(a) }, "aes-128-gcm-16,prf-hmac-sha2-256,x25519"},
		"P-384 only":                   {func(a, b *Peer) { b.Proposals = []Proposal{ikeProp(tGCM256, tPRF, tP384)} }, "p-384"},
		"MODP":                         {prop(ikeProp(tCBC256, tPRF, tHMAC, tModp)), "aes-256-cbc,prf-hmac-sha2-256,hmac-sha2-256-128,modp-2048"},
		"chacha20, sha512":             {prop(ikeProp(tChaCha, tPRF512, tX25519)), "chacha20-poly1305,prf-hmac-sha2-512,x25519"},
		"cbc, sha512":                  {prop(ikeProp(tCBC256, tPRF512, tHMAC512, tP256)), "hmac-sha2-512-256,p-256"},
		"two additional exchanges":     {prop(ikeProp(tGCM128, tPRF, tX25519, tKEM, tKEM3)), "+ml-kem-768+ml-kem-768"},
		"certificates, ecdsa":          {func(a, b *Peer) { withCerts(t, ca, a, b, "ecdsa") }, ""},
		"certificates, ecdsa 384":      {func(a, b *Peer) { withCerts(t, ca, a, b, "ecdsa384") }, ""},
		"certificates, ecdsa 521":      {func(a, b *Peer) { withCerts(t, ca, a, b, "ecdsa521") }, ""},
		"certificates, ed25519":        {func(a, b *Peer) { withCerts(t, ca, a, b, "ed25519") }, ""},
		"certificates, rsa":            {func(a, b *Peer) { withCerts(t, ca, a, b, "rsa") }, ""},
		"certificate and name from it": {func(a, b *Peer) { withCerts(t, ca, a, b, "ecdsa"); a.LocalID, b.LocalID = Identity{}, Identity{} }, ""},
		"raw keys, ed25519":            {func(a, b *Peer) { withRawKeys(t, a, b, "ed25519") }, ""},
		"raw keys, rsa":                {func(a, b *Peer) { withRawKeys(t, a, b, "rsa") }, ""},
		"raw keys and certificates mixed": {func(a, b *Peer) {
			withCerts(t, ca, a, b, "ecdsa")
			b.CAs = nil
			b.PublicKeys = map[string]crypto.PublicKey{"a.example": a.Key.Public()}
		}, ""},
		"wildcard identity": {func(a, b *Peer) { b.RemoteID = "*.example" }, ""},
		"any identity":      {func(a, b *Peer) { a.RemoteID = "" }, ""},
		"address identities": {func(a, b *Peer) {
			a.LocalID, b.LocalID, a.RemoteID, b.RemoteID = Identity{}, Identity{}, "192.0.2.2", "192.0.2.1"
		}, ""},
		"ppk": {both(func(p *Peer) {
			p.PPKs, p.PPKID, p.PPKRequired = map[string][]byte{"k1": []byte("post-quantum")}, "k1", true
		}), ""},
		"ppk known to one side only": {func(a, b *Peer) { a.PPKs, a.PPKID = map[string][]byte{"k1": []byte("post-quantum")}, "k1" }, ""},
		"ppk of another name, optional": {func(a, b *Peer) {
			a.PPKs, a.PPKID = map[string][]byte{"k1": []byte("x")}, "k1"
			b.PPKs, b.PPKID = map[string][]byte{"k2": []byte("y")}, "k2"
		}, ""},
		"transport mode":           {func(a, b *Peer) { a.Children[0].Mode, b.Children[0].Mode = Transport, Transport }, "transport"},
		"forced encapsulation":     {func(a, b *Peer) { a.ForceEncap = true }, "udp"},
		"encapsulation by answer":  {func(a, b *Peer) { b.ForceEncap = true }, "udp"},
		"both prefer UDP":          {both(func(p *Peer) { p.PreferEncap = true }), "udp"},
		"one prefers UDP":          {func(a, b *Peer) { a.PreferEncap = true }, "native"},
		"the other prefers UDP":    {func(a, b *Peer) { b.PreferEncap = true }, "native"},
		"no fragments":             {func(a, b *Peer) { b.Fragments = Off }, ""},
		"no MOBIKE":                {func(a, b *Peer) { b.MOBIKE = Off }, ""},
		"AH":                       {both(func(p *Peer) { p.Children[0].Protocol = ProtoAH }), "ah"},
		"child cbc without esn":    {both(func(p *Peer) { p.Children[0].Proposals = []Proposal{childProp(tCBC256, tHMAC, tNoESN)} }), "aes-256-cbc hmac-sha2-256-128"},
		"responder has more peers": {func(a, b *Peer) { b.Endpoint = netip.AddrPort{} }, ""},
	} {
		bothWays(t, name, func(t *testing.T, jobs int) {
			s := newSim(t, 1)
			s.jobs = jobs
			pa, pb := pskPeers()
			row.change(pa, pb)
			a, b := s.twoNodes(pa, pb)
			s.call(a, "b", "net")
			s.run(5 * time.Second)
			p := s.pairs(a, b, "net")
			if len(p) != 1 {
				s.dump()
				t.Fatalf("%d children, want 1", len(p))
			}
			x := p[0]
			got := strings.Join([]string{a.Status()[0].Suite, x.Mode.String(), x.Encryption, x.Integrity}, " ")
			if x.UDPEncap {
				got += " udp"
			} else {
				got += " native"
			}
			if x.Protocol == ProtoAH {
				got += " ah"
			}
			if !strings.Contains(got, row.want) {
				t.Errorf("got %q, want %q in it", got, row.want)
			}
			if a.Stats().HalfOpen+b.Stats().HalfOpen+len(a.inits)+len(b.inits) != 0 {
				t.Error("something is still half open")
			}
			s.take(a, a.Terminate(s.now, "", ""))
			s.run(5 * time.Second)
			if len(a.sad)+len(b.sad)+len(a.sas)+len(b.sas)+len(a.spis)+len(b.spis) != 0 {
				t.Errorf("left after the end: %v %v %v %v", a.sad, b.sad, a.sas, b.sas)
			}
		})
	}
}

// Handshakes that must fail, with what each side says. No side may keep a
// child.
func TestFailures(t *testing.T) {
	ca, other := newPKI(t), newPKI(t)
	for name, row := range map[string]struct {
		change       func(a, b *Peer)
		wantA, wantB Failure
	}{
		"keys differ":          {func(a, b *Peer) { b.PSK = []byte("another key") }, WrongKeyByPeer, WrongKey},
		"unknown identity":     {func(a, b *Peer) { b.RemoteID = "c.example" }, WrongKeyByPeer, UnknownPeer},
		"responder is another": {func(a, b *Peer) { a.RemoteID = "*.elsewhere" }, WrongIdentity, WrongKeyByPeer},
		"asked for another":    {func(a, b *Peer) { a.RemoteID = "c.example" }, WrongKeyByPeer, WrongIdentity},
		"no proposal": {func(a, b *Peer) {
			b.Proposals = []Proposal{ikeProp(tCBC256, tPRF, tHMAC, tX25519)}
			a.Proposals = []Proposal{ikeProp(tGCM128, tPRF, tX25519)}
		}, NoProposal, NoProposal},
		"no child proposal": {func(a, b *Peer) {
			a.Children[0].Proposals = []Proposal{childProp(tGCM128, tESN)}
			b.Children[0].Proposals = []Proposal{childProp(tGCM256, tESN)}
		}, NoProposal, NoProposal},
		"esn only on one side": {func(a, b *Peer) {
			a.Children[0].Proposals = []Proposal{childProp(tGCM128, tESN)}
			b.Children[0].Proposals = []Proposal{childProp(tGCM128, tNoESN)}
		}, NoProposal, NoProposal},
		"selectors": {func(a, b *Peer) {
			b.Children[0].LocalTS = []TrafficSelector{SelectorOf(netip.MustParsePrefix("10.0.0.0/8"))}
		}, NoSelectors, NoSelectors},
		"transport against tunnel": {func(a, b *Peer) { b.Children[0].Mode = Transport }, NoProposal, WrongMode},
		"tunnel against transport": {func(a, b *Peer) { a.Children[0].Mode = Transport }, WrongMode, RefusedByPeer},
		"address not allowed":      {func(a, b *Peer) { b.Endpoint = netip.MustParseAddrPort("192.0.2.9:500") }, NoProposal, UnknownPeer},
		"ca differs":               {func(a, b *Peer) { withCerts(t, ca, a, b, "ecdsa"); b.CAs = []*x509.Certificate{other.cert} }, WrongKeyByPeer, BadCertificate},
		"revoked": {func(a, b *Peer) {
			withCerts(t, ca, a, b, "ecdsa")
			b.CRLs = []*x509.RevocationList{ca.revoke(t, simStart.Add(time.Hour), a.Certificates[0])}
		}, WrongKeyByPeer, BadCertificate},
		"expired list": {func(a, b *Peer) {
			withCerts(t, ca, a, b, "ecdsa")
			b.CRLs = []*x509.RevocationList{ca.revoke(t, simStart.Add(-time.Second))}
		}, WrongKeyByPeer, BadCertificate},
		"responder revoked": {func(a, b *Peer) {
			withCerts(t, ca, a, b, "ecdsa")
			a.CRLs = []*x509.RevocationList{ca.revoke(t, simStart.Add(time.Hour), b.Certificates[0])}
		}, BadCertificate, WrongKeyByPeer},
		"certificate expired": {func(a, b *Peer) {
			withCerts(t, ca, a, b, "ecdsa")
			a.Certificates[0] = ca.sign(t, &x509.Certificate{DNSNames: []string{"a.example"}, NotBefore: simStart.Add(-2 * time.Hour), NotAfter: simStart.Add(-time.Hour)}, a.Key.Public(), ca.cert)
		}, WrongKeyByPeer, BadCertificate},
		"certificate of another name": {func(a, b *Peer) {
			withCerts(t, ca, a, b, "ecdsa")
			b.RemoteID, a.LocalID = "", Identity{}
			a.Certificates[0] = ca.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: "x"}}, a.Key.Public(), ca.cert)
			b.RemoteID = "a.example"
		}, WrongKeyByPeer, UnknownPeer},
		"raw key unknown": {func(a, b *Peer) { withRawKeys(t, a, b, "ed25519"); delete(b.PublicKeys, "a.example") }, WrongKeyByPeer, UnknownPeer},
		"raw key wrong": {func(a, b *Peer) {
			withRawKeys(t, a, b, "ed25519")
			b.PublicKeys["a.example"] = newKey(t, "ed25519").Public()
		}, WrongKeyByPeer, WrongKey},
		"psk against signature": {func(a, b *Peer) { a2, b2 := *a, *b; withRawKeys(t, &a2, &b2, "ed25519"); *b = b2 }, WrongKeyByPeer, WrongMethod},
		"signature against psk": {func(a, b *Peer) { a2, b2 := *a, *b; withRawKeys(t, &a2, &b2, "ed25519"); *a = a2 }, WrongKeyByPeer, WrongMethod},
		"ppk differs": {func(a, b *Peer) {
			a.PPKs, a.PPKID = map[string][]byte{"k": []byte("1")}, "k"
			b.PPKs, b.PPKID = map[string][]byte{"k": []byte("2")}, "k"
		}, WrongKeyByPeer, WrongKey},
		"ppk required by caller": {func(a, b *Peer) { a.PPKs, a.PPKID, a.PPKRequired = map[string][]byte{"k": []byte("1")}, "k", true }, NoPPK, NoAnswer},
		"ppk required by callee": {func(a, b *Peer) { b.PPKs, b.PPKID, b.PPKRequired = map[string][]byte{"k": []byte("1")}, "k", true }, WrongKeyByPeer, NoPPK},
		"nobody there":           {func(a, b *Peer) { a.Endpoint = netip.MustParseAddrPort("192.0.2.77:500") }, NoAnswer, NoFailure},
	} {
		bothWays(t, name, func(t *testing.T, jobs int) {
			s := newSim(t, 1)
			s.jobs = jobs
			pa, pb := pskPeers()
			row.change(pa, pb)
			a, b := s.twoNodes(pa, pb)
			s.call(a, "b", "net")
			s.run(10 * time.Minute)
			if len(a.sad)+len(b.sad) != 0 {
				t.Errorf("children: %d and %d, want none", len(a.sad), len(b.sad))
			}
			if a.failure() != row.wantA || b.failure() != row.wantB {
				s.dump()
				t.Errorf("failures %q and %q, want %q and %q", a.failure(), b.failure(), row.wantA, row.wantB)
			}
			if len(a.spis)+len(b.spis) != 0 {
				t.Errorf("reserved SPIs left: %d and %d", len(a.spis), len(b.spis))
			}
		})
	}
}
