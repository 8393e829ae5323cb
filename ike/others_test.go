package ike

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// This file holds kinds of faults that others have had (docs/others.md), where no
// test did so before.

// Before a peer has proved who it is, nothing of what only an authenticated peer
// may ask is done: no child is made, in the middle of EAP neither, however well the
// request is sealed; nor what the responder asks of the caller meanwhile.
func TestNothingBeforeAuthentication(t *testing.T) {
	for _, exchange := range []uint8{exCreateChildSA, exInformational, exFollowupKE, 250} {
		for _, way := range []string{"before IKE_AUTH", "in EAP", "by the responder"} {
			x := newEAPSides(t)
			if way != "in EAP" {
				x.pa, x.pb = pskPeers()
			}
			x.pa.Proposals = []Proposal{ikeProp(tGCM128, tPRF, tX25519)}
			x.pb.Proposals, x.rounds = x.pa.Proposals, 20
			x.meet()
			auths := 0
			hold := func(d Datagram) (Datagram, bool) {
				if d.Data[18] == exIKEAuth {
					auths++
				}
				return d, d.Data[18] != exIKEAuth || way == "in EAP" && auths < 5
			}
			if way == "in EAP" {
				x.callEAP(x.a, x.caller)
				x.nat = hold
			} else {
				x.nat = hold
				x.call(x.a, "b", "net")
			}
			x.run(300 * time.Millisecond)
			near, far := x.a, x.b
			if way == "by the responder" {
				near, far = x.b, x.a
			}
			sa, other := near.theOne(t), far.theOne(t)
			if other.state == stUp || auths == 0 || way == "in EAP" && other.hs.eap == nil {
				t.Fatalf("%s: the far side is up already, or not as far as that (%d)", way, auths)
			}
			if sa.out == nil { // as responder it makes its keys with the first message that needs them
				sa.hs.keyed, sa.keys = true, other.keys
				near.startSealers(sa)
			}
			offer := childProp(tGCM128, tNoESN)
			offer.spi = []byte{1, 2, 3, 4}
			list := []payload{saPayload([]Proposal{offer}), {kind: plNonce, body: make([]byte, 32)},
				tsPayload(plTSi, ts("192.0.2.0/24")), tsPayload(plTSr, ts("192.0.2.0/24"))}
			for id := range uint32(6) {
				msgs, err := sealMessage(sa.header(exchange, id, false), list, sa.out, 0)
				if err != nil {
					t.Fatal(err)
				}
				x.take(far, far.Handle(x.now, Datagram{Local: other.local, Remote: other.remote, Data: msgs[0]}))
			}
			x.run(time.Second)
			if n := far.has(IKEUp) + far.has(ChildUp) + len(far.sad); n != 0 {
				x.dump()
				t.Errorf("%s, exchange %d: something is up, or installed", way, exchange)
			}
		}
	}
}

// Name constraints (RFC 5280 section 4.2.1.10) hold for names of all kinds that
// ipfw knows peers by, permitted and excluded ones, of the CA and of one below it;
// a constraint on names of a kind that is not compared refuses the certificate.
func TestNameConstraints(t *testing.T) {
	_, net10, _ := net.ParseCIDR("10.0.0.0/8")
	// permittedSubtrees [0] of one directoryName [4]: O=Example
	name, err := asn1Name("Example")
	if err != nil {
		t.Fatal(err)
	}
	dirName := tlv(0x30, tlv(0xa0, tlv(0x30, tlv(0xa4, name))))
	for what, row := range map[string]struct {
		ca, leaf x509.Certificate
		id       Identity
		ok       bool
	}{
		"a permitted host name":            {x509.Certificate{PermittedDNSDomains: []string{"a.example"}}, x509.Certificate{DNSNames: []string{"x.a.example"}}, Identity{idFQDN, "x.a.example"}, true},
		"another host name":                {x509.Certificate{PermittedDNSDomains: []string{"a.example"}}, x509.Certificate{DNSNames: []string{"x.b.example"}}, Identity{idFQDN, "x.b.example"}, false},
		"one of two host names":            {x509.Certificate{PermittedDNSDomains: []string{"a.example"}}, x509.Certificate{DNSNames: []string{"x.a.example", "b.example"}}, Identity{idFQDN, "x.a.example"}, false},
		"an excluded host name":            {x509.Certificate{ExcludedDNSDomains: []string{"b.example"}}, x509.Certificate{DNSNames: []string{"x.b.example"}}, Identity{idFQDN, "x.b.example"}, false},
		"a permitted mail address":         {x509.Certificate{PermittedEmailAddresses: []string{"a.example"}}, x509.Certificate{EmailAddresses: []string{"ann@a.example"}}, Identity{idRFC822, "ann@a.example"}, true},
		"another mail address":             {x509.Certificate{PermittedEmailAddresses: []string{"a.example"}}, x509.Certificate{EmailAddresses: []string{"ann@b.example"}}, Identity{idRFC822, "ann@b.example"}, false},
		"a permitted address":              {x509.Certificate{PermittedIPRanges: []*net.IPNet{net10}}, x509.Certificate{IPAddresses: []net.IP{{10, 0, 0, 1}}}, Identity{idIPv4, "\x0a\x00\x00\x01"}, true},
		"an excluded address":              {x509.Certificate{ExcludedIPRanges: []*net.IPNet{net10}}, x509.Certificate{IPAddresses: []net.IP{{10, 0, 0, 1}}}, Identity{idIPv4, "\x0a\x00\x00\x01"}, false},
		"a host name in the subject alone": {x509.Certificate{PermittedDNSDomains: []string{"a.example"}}, x509.Certificate{}, Identity{idFQDN, "leaf"}, false},
		"constraints on subjects":          {x509.Certificate{ExtraExtensions: []pkix.Extension{{Id: []int{2, 5, 29, 30}, Critical: true, Value: dirName}}}, x509.Certificate{DNSNames: []string{"x.a.example"}}, Identity{idFQDN, "x.a.example"}, false},
	} {
		for _, below := range []bool{false, true} {
			top := newPKI(t)
			ca := row.ca
			ca.Subject, ca.IsCA, ca.BasicConstraintsValid = pkix.Name{CommonName: "constrained"}, true, true
			ca.PermittedDNSDomainsCritical, ca.KeyUsage, ca.SubjectKeyId = true, x509.KeyUsageCertSign, []byte{2}
			signer := &pki{key: newKey(t, "ecdsa"), n: 7}
			var shown [][]byte
			p := &Peer{Name: "p", CAs: []*x509.Certificate{top.cert}}
			if below {
				signer.cert = top.sign(t, &ca, signer.key.Public(), top.cert)
				shown = [][]byte{signer.cert.Raw}
			} else {
				signer.cert = signer.sign(t, &ca, signer.key.Public(), nil)
				p.CAs = []*x509.Certificate{signer.cert}
			}
			leaf, key := row.leaf, newKey(t, "ecdsa")
			leaf.Subject = pkix.Name{CommonName: "leaf"}
			shown = slices.Concat([][]byte{signer.sign(t, &leaf, key.Public(), signer.cert).Raw}, shown)
			method, auth, err := sign(key, []byte("octets"), ourHashes, testRand(1))
			if err != nil {
				t.Fatal(err)
			}
			fail := p.verifyPeer(&claim{id: row.id, method: method, auth: auth, certs: shown, octets: []byte("octets")}, PRFSHA256, simStart)
			if (fail == nil) != row.ok {
				t.Errorf("%s, of a CA below another: %v: %v", what, below, fail)
			}
		}
	}
}

// asn1Name is a distinguished name with one organization.
func asn1Name(o string) ([]byte, error) {
	return asn1.Marshal(pkix.Name{Organization: []string{o}}.ToRDNSequence())
}

// An identity without data is nobody: it is refused as it is read, whatever its
// type, and no pattern takes it.
func TestEmptyIdentity(t *testing.T) {
	for kind := range 256 {
		if id, err := parseID([]byte{byte(kind), 0, 0, 0}); err == nil {
			t.Errorf("type %d: an ID payload without data is %q", kind, id)
		}
		id := Identity{Type: uint8(kind)}
		for _, pattern := range []string{"*", "*.example", "*@example", "a.example", "key-id:*", "key-id:", "CN=*", "0.0.0.0", "::"} {
			if id.matches(pattern) {
				t.Errorf("type %d without data matches %q", kind, pattern)
			}
		}
	}
}

// What is encrypted stands alone in its message: a message with another payload
// beside it is dropped, whole or in fragments, and changes nothing.
func TestOneEncryptedPayload(t *testing.T) {
	s, a, b := upTwo(t, func(pa, pb *Peer) {})
	sa := a.theOne(t)
	dropped := b.Stats().Dropped
	for _, limit := range []int{0, 200} {
		list := []payload{deletePayload(ProtoIKE), {kind: plVendor, body: make([]byte, 300)}}
		msgs, err := sealMessage(sa.header(exInformational, sa.nextOut, false), list, sa.out, limit)
		if err != nil || limit != 0 && len(msgs) < 2 {
			t.Fatal(len(msgs), err)
		}
		for _, m := range msgs {
			h, _ := parseHeader(m)
			vendor := []byte{h.next, 0, 0, 8, 'm', 'o', 'r', 'e'}
			h.next, h.length = plVendor, uint32(len(m)+len(vendor))
			m = slices.Concat(h.append(nil), vendor, m[headerLen:])
			s.take(b, b.Handle(s.now, Datagram{Local: sa.remote, Remote: sa.local, Data: m}))
		}
	}
	if b.theOne(t).state != stUp || b.Stats().Dropped < dropped+3 {
		s.dump()
		t.Errorf("not dropped: %d", b.Stats().Dropped-dropped)
	}
}

// A certificate whose key is of a kind that IKE does not verify with is refused,
// with a reason, by AUTH and by EAP alike.
func TestKeysOfOtherKinds(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := newPKI(t)
	p := &Peer{Name: "p", CAs: []*x509.Certificate{ca.cert}, RemoteID: "*"}
	shown := [][]byte{ca.issue(t, "leaf.example", key).Raw}
	sig, err := ecdsa.SignASN1(rand.Reader, key, digest(crypto.SHA256, []byte("octets")))
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(sigAlgs, func(a sigAlg) bool { return a.name == "ecdsa-with-sha256" })
	auth := slices.Concat([]byte{byte(len(sigAlgs[i].der))}, sigAlgs[i].der, sig)
	if fail := p.verifyPeer(&claim{id: Identity{idFQDN, "leaf.example"}, method: authSignature, auth: auth, certs: shown, octets: []byte("octets")}, PRFSHA256, simStart); fail == nil || !strings.Contains(fail.text, "P-256") {
		t.Errorf("AUTH: %v", fail)
	}
	p.EAP = true
	if err := (&eapRun{peers: []*Peer{p}}).verify("leaf.example", shown, simStart); err == nil {
		t.Error("EAP takes it")
	}
}
