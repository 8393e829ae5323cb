package peers

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ipfw/ipfw/ike"
)

// keyKinds are the kinds of keys that certificates and raw keys are tried with.
var keyKinds = []string{"ecdsa-256", "ecdsa-384", "ecdsa-521", "ed25519", "rsa-2048", "rsa-3072"}

func newKey(t testing.TB, kind string) crypto.Signer {
	t.Helper()
	var k crypto.Signer
	var err error
	switch kind {
	case "ecdsa-256":
		k, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ecdsa-384":
		k, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ecdsa-521":
		k, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "ed25519":
		_, k, err = ed25519.GenerateKey(rand.Reader)
	case "rsa-2048":
		k, err = rsa.GenerateKey(rand.Reader, 2048)
	case "rsa-3072":
		k, err = rsa.GenerateKey(rand.Reader, 3072)
	case "rsa-4096":
		k, err = rsa.GenerateKey(rand.Reader, 4096)
	default:
		t.Fatalf("no kind of key is called %q", kind)
	}
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// party is one side's key and certificate.
type party struct {
	key  crypto.Signer
	cert *x509.Certificate
	pss  bool // signs certificates by RSASSA-PSS
}

// issue makes a certificate for a name, signed by ca; a CA if that is nil.
// fill makes it longer by that many names.
func issue(t testing.TB, ca *party, name, kind string, fill int) *party {
	t.Helper()
	return sign(t, ca, name, newKey(t, kind), fill)
}

// pssCA is the name of a CA that signs by RSASSA-PSS.
const pssCA = "CA that signs by RSASSA-PSS"

// sign is issue for a key that is there.
func sign(t testing.TB, ca *party, name string, key crypto.Signer, fill int) *party {
	t.Helper()
	p := &party{key: key, pss: ca == nil && name == pssCA}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name, Organization: []string{"Example"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature}
	by := p
	if ca == nil {
		tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	} else {
		by, tmpl.DNSNames = ca, []string{name}
		for i := range fill {
			tmpl.DNSNames = append(tmpl.DNSNames, fmt.Sprintf("one-of-many-names-%d.%s", i, name))
		}
	}
	if by.pss {
		tmpl.SignatureAlgorithm = x509.SHA256WithRSAPSS
	}
	parent := tmpl
	if ca != nil {
		parent = ca.cert
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, p.key.Public(), by.key)
	if err == nil {
		p.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// swanFile writes a PEM file below swanctl's folder.
func swanFile(t testing.TB, s *site, name, kind string, der []byte) {
	t.Helper()
	path := filepath.Join(s.peer.Dir, name)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func swanKey(t testing.TB, s *site, name string, k crypto.Signer) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	swanFile(t, s, "private/"+name, "PRIVATE KEY", der)
}

// clean removes what an earlier row left in swanctl's folder.
func clean(t testing.TB, s *site) {
	t.Helper()
	for _, d := range []string{"x509", "x509ca", "private", "pubkey"} {
		if err := os.RemoveAll(filepath.Join(s.peer.Dir, d)); err != nil {
			t.Fatal(err)
		}
	}
}

// certs makes a row authenticate by certificates of one CA. theirAuth is
// strongSwan's word for how it signs.
func certs(r row, kind, theirAuth string, fill int) row {
	r.prepare = func(t testing.TB, s *site, r *row) {
		ca := issue(t, nil, "CA of the test", "ecdsa-256", 0)
		if r.pss {
			ca = issue(t, nil, pssCA, "rsa-3072", 0)
		}
		us, them := issue(t, ca, "us.example", kind, fill), issue(t, ca, "peer.example", kind, fill)
		swanFile(t, s, "x509ca/ca.pem", "CERTIFICATE", ca.cert.Raw)
		swanFile(t, s, "x509/peer.pem", "CERTIFICATE", them.cert.Raw)
		swanKey(t, s, "peer.pem", them.key)
		r.local = "auth = " + theirAuth + "\n      certs = peer.pem\n      id = peer.example"
		r.remote = "auth = pubkey\n      cacerts = ca.pem\n      id = us.example"
		more := r.ours
		r.ours = func(p *ike.Peer, c *ike.Child) {
			p.PSK, p.LocalID = nil, ike.Identity{}
			p.Key, p.Certificates, p.CAs = us.key, []*x509.Certificate{us.cert}, []*x509.Certificate{ca.cert}
			if more != nil {
				more(p, c)
			}
		}
	}
	return r
}

// rawKeys makes a row authenticate by public keys that both sides have.
func rawKeys(r row, kind string) row {
	r.prepare = func(t testing.TB, s *site, r *row) {
		us, them := newKey(t, kind), newKey(t, kind)
		for name, k := range map[string]crypto.Signer{"us": us, "peer": them} {
			der, err := x509.MarshalPKIXPublicKey(k.Public())
			if err != nil {
				t.Fatal(err)
			}
			swanFile(t, s, "pubkey/"+name+".pem", "PUBLIC KEY", der)
		}
		swanKey(t, s, "peer.pem", them)
		r.local = "auth = pubkey\n      pubkeys = peer.pem\n      id = peer.example"
		r.remote = "auth = pubkey\n      pubkeys = us.pem\n      id = us.example"
		r.ours = func(p *ike.Peer, c *ike.Child) {
			p.PSK, p.Key, p.PublicKeys = nil, us, map[string]crypto.PublicKey{"peer.example": them.Public()}
		}
	}
	return r
}

// strangeCA has a peer trust a CA that nobody's certificate is of.
func strangeCA(p *ike.Peer) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "strange CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		panic(err)
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	p.CAs = []*x509.Certificate{ca}
}
