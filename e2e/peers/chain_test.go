package peers

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ipfw/ipfw/ike"
)

// badLineSite is a direct site whose peer sends fragments of 300 bytes, IP header and all,
// over a bad line.
func badLineSite(t *testing.T) *site {
	s := directSite(t, "  fragment_size = 300\n")
	s.line = badLine(t, s.peerHost, "s0")
	return s
}

// chainRows have long chains of certificates in small fragments, over a bad line.
func chainRows() (rows []row) {
	var made sync.Once
	var root, us, them *party
	var between []*party
	for _, call := range sides {
		for _, v6 := range outerTwo {
			rows = append(rows, row{name: "a chain of four RSA certificates in fragments of 300 bytes, outer " + version(v6), call: call, v6: v6, limits: ike.Limits{FragmentSize: 272},
				prepare: func(t testing.TB, s *site, r *row) {
					made.Do(func() { root, between, us, them = chain(t, 3, "rsa-4096") })
					swanFile(t, s, "x509ca/ca.pem", "CERTIFICATE", root.cert.Raw)
					for i, ca := range between {
						swanFile(t, s, fmt.Sprintf("x509/between%d.pem", i), "CERTIFICATE", ca.cert.Raw)
					}
					swanFile(t, s, "x509/peer.pem", "CERTIFICATE", them.cert.Raw)
					swanKey(t, s, "peer.pem", them.key)
					r.local = "auth = pubkey\n      certs = peer.pem\n      id = peer.example"
					r.remote = "auth = pubkey\n      cacerts = ca.pem\n      id = us.example"
					r.ours = func(p *ike.Peer, c *ike.Child) {
						p.PSK, p.LocalID = nil, ike.Identity{}
						p.Key, p.CAs, p.Certificates = us.key, []*x509.Certificate{root.cert}, []*x509.Certificate{us.cert}
						for _, ca := range slices.Backward(between) {
							p.Certificates = append(p.Certificates, ca.cert)
						}
					}
					s.line.begin()
				},
				after: func(p *play) { p.site.line.check(p, 30) }})
		}
	}
	return rows
}

// chain makes a CA, n CAs between, each signed by the one before it, and two
// certificates of the last.
func chain(t testing.TB, n int, kind string) (root *party, between []*party, us, them *party) {
	t.Helper()
	root = issue(t, nil, "Root CA of the test", kind, 0)
	above := root
	for i := range n {
		ca := &party{key: newKey(t, kind)}
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
			Subject: pkix.Name{Country: []string{"CH"}, Organization: []string{"Example"}, OrganizationalUnit: []string{"Certificates"}, CommonName: fmt.Sprintf("Intermediate CA %d of the test", i+1)},
			IsCA:    true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, above.cert, ca.key.Public(), above.key)
		if err == nil {
			ca.cert, err = x509.ParseCertificate(der)
		}
		if err != nil {
			t.Fatal(err)
		}
		between, above = append(between, ca), ca
	}
	return root, between, issue(t, above, "us.example", kind, 0), issue(t, above, "peer.example", kind, 0)
}
