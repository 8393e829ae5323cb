package ike

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// longKey is an RSA key of many short primes: made in a moment however long it
// is, and its signatures are right.
type longKey struct {
	pub    rsa.PublicKey
	primes []*big.Int
}

func newLongKey(t testing.TB, bits int) *longKey {
	t.Helper()
	k := &longKey{pub: rsa.PublicKey{N: big.NewInt(1), E: 65537}}
	for left := bits; left > 0; left = bits - k.pub.N.BitLen() {
		size := 256
		if left < 2*size {
			size = left // the last one
		}
		p, err := rand.Prime(rand.Reader, size)
		if err != nil {
			t.Fatal(err)
		}
		order := new(big.Int).Sub(p, big.NewInt(1))
		next := new(big.Int).Mul(k.pub.N, p)
		if new(big.Int).Mod(order, big.NewInt(65537)).Sign() == 0 || size == left && next.BitLen() != bits {
			continue
		}
		k.pub.N, k.primes = next, append(k.primes, p)
	}
	return k
}

func (k *longKey) Public() crypto.PublicKey { return &k.pub }

// Sign is RSASSA-PKCS1-v1_5 (RFC 8017 section 8.2.1) with SHA-256, prime by
// prime.
func (k *longKey) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != crypto.SHA256 {
		return nil, fmt.Errorf("hash %v", opts.HashFunc())
	}
	n := (k.pub.N.BitLen() + 7) / 8
	info := append([]byte{0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20}, digest...)
	em := make([]byte, n)
	for i := range em {
		em[i] = 0xff
	}
	em[0], em[1], em[n-len(info)-1] = 0, 1, 0
	copy(em[n-len(info):], info)
	m, sum := new(big.Int).SetBytes(em), new(big.Int)
	for _, p := range k.primes {
		order := new(big.Int).Sub(p, big.NewInt(1))
		d := new(big.Int).ModInverse(big.NewInt(int64(k.pub.E)), order)
		s := new(big.Int).Exp(new(big.Int).Mod(m, p), d, p)
		rest := new(big.Int).Div(k.pub.N, p)
		s.Mul(s, new(big.Int).ModInverse(rest, p)).Mul(s, rest)
		sum.Add(sum, s)
	}
	return sum.Mod(sum, k.pub.N).FillBytes(make([]byte, n)), nil
}

// longChain is a leaf for a name and n certificates of CAs above it, of which
// nobody knows the last. bits are those of the RSA keys of the CAs.
func longChain(t testing.TB, name string, leaf crypto.PublicKey, n, bits int) []*x509.Certificate {
	t.Helper()
	ca := &pki{}
	var list []*x509.Certificate
	k := newLongKey(t, bits) // one for all: making many takes time, and what costs the verifier is the same
	tmpl := func(i int) *x509.Certificate {
		return &x509.Certificate{Subject: pkix.Name{CommonName: fmt.Sprint("CA ", i)}, IsCA: true, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageCertSign, SignatureAlgorithm: x509.SHA256WithRSA}
	}
	for i := n; i > 0; i-- {
		list = append(list, signLong(t, ca, tmpl(i), k.Public(), tmpl(i+1), k))
	}
	c := &x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, EmailAddresses: []string{name},
		KeyUsage: x509.KeyUsageDigitalSignature, SignatureAlgorithm: x509.SHA256WithRSA}
	list = append(list, signLong(t, ca, c, leaf, tmpl(1), k))
	slices.Reverse(list)
	return list
}

func signLong(t testing.TB, p *pki, c *x509.Certificate, pub crypto.PublicKey, parent *x509.Certificate, by crypto.Signer) *x509.Certificate {
	t.Helper()
	p.n++
	c.SerialNumber = big.NewInt(p.n)
	c.NotBefore, c.NotAfter = simStart.Add(-time.Hour), simStart.Add(1000*time.Hour)
	b, err := x509.CreateCertificate(rand.Reader, c, parent, pub, by)
	if err != nil {
		t.Fatal(err)
	}
	x, err := x509.ParseCertificate(b)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// lastAuth has a stranger with a chain of certificates call a responder with n
// ike blocks, of which each has another CA, and gives the responder's last
// event and how long its goroutine has worked on the IKE_AUTH.
func lastAuth(t testing.TB, n int, chain []*x509.Certificate, key crypto.Signer) (Event, time.Duration) {
	t.Helper()
	s := newSim(t, 3)
	pa, pb := pskPeers()
	withCerts(t, newPKI(t), pa, pb, "ecdsa")
	pa.Fragments = Off
	var blocks []*Peer
	for i := range n {
		p := *pb
		p.Name, p.RemoteID, p.Endpoint = fmt.Sprint("block ", i), "*.example", netip.AddrPort{}
		p.CAs = []*x509.Certificate{newPKI(t).cert}
		blocks = append(blocks, &p)
	}
	a := s.add("a", "192.0.2.1", Config{Peers: []*Peer{pa}})
	b := s.add("b", "192.0.2.2", Config{Peers: blocks})
	pa.Certificates, pa.Key = chain, key // what a policy would not take
	var auth []Datagram
	s.nat = func(d Datagram) (Datagram, bool) {
		if d.Remote.Addr() == b.addr && d.Data[18] == exIKEAuth {
			auth = append(auth, Datagram{Local: d.Remote, Remote: d.Local, Data: slices.Clone(d.Data)})
			return d, false
		}
		return d, true
	}
	s.call(a, "b", "net")
	for len(auth) == 0 {
		if !s.step(s.now.Add(10 * time.Second)) {
			t.Fatal("no IKE_AUTH")
		}
	}
	began := time.Now()
	s.take(b, b.Handle(s.now, auth[0]))
	took := time.Since(began)
	if len(b.log) == 0 || len(b.sas) != 0 {
		t.Fatalf("%d events, %d IKE SAs", len(b.log), len(b.sas))
	}
	return b.log[len(b.log)-1], took
}

// Keys of RSA that are longer than anybody needs are not looked at: the work of
// verifying them grows with the cube of their length, and costs who sends them
// nothing.
func TestLongKeys(t *testing.T) {
	key := newKey(t, "ecdsa")
	for _, bits := range []int{8192, 16384} {
		chain := longChain(t, "a.example", key.Public(), 4, bits)
		for _, n := range []int{1, 16} {
			ev, took := lastAuth(t, n, chain, key)
			t.Logf("%d certificates of CAs with RSA keys of %d bits, %d ike blocks: %.1f ms for IKE_AUTH", len(chain)-1, bits, n, float64(took.Microseconds())/1000)
			if want := fmt.Sprintf("RSA key of %d bits, at most 4096 are taken", bits); ev.Failure != BadCertificate || !strings.Contains(ev.Detail, want) {
				t.Errorf("reported %v, want %q", ev, want)
			}
		}
	}
	// A chain of seven, as long as a message may be.
	for _, bits := range []int{8192, 16384, 24576} {
		ev, took := lastAuth(t, 1, longChain(t, "a.example", key.Public(), 7, bits), key)
		t.Logf("7 certificates of CAs with RSA keys of %d bits, 1 ike block: %.1f ms for IKE_AUTH", bits, float64(took.Microseconds())/1000)
		if ev.Failure != BadCertificate || !strings.Contains(ev.Detail, "8 certificates, 5 are allowed") {
			t.Errorf("reported %v", ev)
		}
	}
	// The longest that is taken is.
	if ev, _ := lastAuth(t, 1, longChain(t, "a.example", key.Public(), 4, 4096), key); ev.Failure != BadCertificate || !strings.Contains(ev.Detail, "it is signed by ") {
		t.Errorf("RSA keys of 4,096 bits: %v", ev)
	}
}

// oddInit is an IKE_SA_INIT of a stranger that offers a number of proposals with
// transforms that nobody knows.
func oddInit(t testing.TB, proposals, transforms int) []byte {
	t.Helper()
	list, _, err := parsePayloads(plSA, initMessage(t, 9)[headerLen:])
	if err != nil {
		t.Fatal(err)
	}
	var offer []Proposal
	for i := range proposals {
		p := Proposal{Protocol: ProtoIKE}
		for j := range transforms {
			p.Transforms = append(p.Transforms, Transform{Type: uint8(1 + j%4), ID: uint16(40000 + 100*i + j)})
		}
		offer = append(offer, p)
	}
	list[slices.IndexFunc(list, func(p payload) bool { return p.kind == plSA })] = saPayload(offer)
	return encodePlain(header{spiI: 7, exchange: exIKESAInit, flags: flagInitiator}, list)
}

// textOf is how long the texts of an event are, in bytes.
func textOf(ev Event) int {
	return len(ev.Ours) + len(ev.Theirs) + len(ev.Nearest) + len(ev.Detail) + len(ev.RemoteID.Data)
}

// What strangers offer is cut before it is an event.
func TestLongOffers(t *testing.T) {
	_, pb := pskPeers()
	for _, row := range []struct{ proposals, transforms int }{{64, 125}, {64, 8}, {4, 125}, {1, 250}} {
		b := newSim(t, 3).add("b", "192.0.2.2", Config{Peers: []*Peer{pb}})
		msg := oddInit(t, row.proposals, row.transforms)
		began := time.Now()
		o := b.Handle(simStart, Datagram{Local: netip.MustParseAddrPort("192.0.2.2:500"), Remote: netip.MustParseAddrPort("192.0.2.1:500"), Data: msg})
		took, size := time.Since(began), 0
		for _, ev := range o.Events {
			size += textOf(ev)
			if ev.Theirs == "" || ev.Setting != "proposals" {
				t.Errorf("event %v", ev)
			}
		}
		t.Logf("IKE_SA_INIT of %d bytes: %.2f ms, %d events, %d bytes of text", len(msg), float64(took.Microseconds())/1000, len(o.Events), size)
		if size > 2000 {
			t.Errorf("%d bytes of text in an event for %d proposals of %d transforms", size, row.proposals, row.transforms)
		}
		if row.proposals*row.transforms <= 512 && len(o.Events) == 0 {
			t.Errorf("no event for %d proposals of %d transforms", row.proposals, row.transforms)
		}
	}
}

// stopInEAP has callers from an address each answer to IKE_SA_INIT and to nothing
// after their first IKE_AUTH, many from each.
func stopInEAP(x *eapSides, many int, addrs ...string) {
	x.t.Helper()
	for _, addr := range addrs {
		for i := range many {
			pa, _ := pskPeers()
			pa.LocalID, pa.PSK, pa.Key, pa.CAs = x.pa.LocalID, nil, x.pa.Key, x.pa.CAs
			pa.Proposals = []Proposal{ikeProp(tGCM128, tPRF, tX25519)}
			a := x.add("stopper", addr, Config{Peers: []*Peer{pa}, Port: uint16(10000 + i), NATPort: uint16(20000 + i)})
			x.callEAP(a, &eapCaller{})
			for live := x.live; x.live == live && len(x.wire) > 0 && x.step(x.now.Add(50*time.Millisecond)); {
			}
			x.nodes = slices.DeleteFunc(x.nodes, func(n *node) bool { return n == a })
			x.wire = nil
		}
	}
}

// Callers who stop in the middle of EAP keep nobody out: 512 of them, from as
// many addresses as it takes.
func TestStoppedInEAP(t *testing.T) {
	for _, n := range []int{32, 200} {
		var addrs []string
		for i := range n {
			addrs = append(addrs, fmt.Sprintf("10.0.%d.%d", i/200, i%200+1))
		}
		x := newEAPSides(t)
		x.delay = 0
		x.rounds = 2
		x.meet()
		stopInEAP(x, 16, addrs...)
		eap := x.b.guard.eap
		x.nat = nil
		x.run(3 * time.Second) // a caller tries again, as people do
		x.callEAP(x.a, x.caller)
		x.run(20 * time.Second)
		up := len(x.pairs(x.a, x.b, "net"))
		t.Logf("%d addresses, 16 callers each: %d in the middle of EAP; honest callers let in: %d of 1", n, eap, up)
		if up != 1 {
			t.Errorf("the honest caller is kept out: %v", x.b.log[len(x.b.log)-1])
		}
		x.run(time.Minute)
		x.settled()
	}
}
