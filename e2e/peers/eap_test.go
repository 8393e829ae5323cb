//go:debug tlsunsafeekm=1

package peers

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/netip"
	"testing"
	"time"

	"github.com/ipfw/ipfw/ike"
)

// eapRow is a caller that proves itself by EAP-TLS and gets an address. More
// changes its certificates.
func eapRow(r row, more func(t testing.TB, e *eapFiles)) row {
	r.call, r.leased = "peer", "peer"
	r.conn = or(r.conn, "vips = 0.0.0.0, ::")
	r.ts = "remote_ts = 10.1.0.1/32, fd01::1/128"
	r.prepare = func(t testing.TB, s *site, r *row) {
		e := &eapFiles{ca: issue(t, nil, "CA of the test", "ecdsa-256", 0), kind: "ecdsa-256", mail: "ann@peer.example", id: "ann@peer.example"}
		e.issuer = e.ca
		if more != nil {
			more(t, e)
		}
		gateway := issue(t, e.ca, "us.example", e.kind, e.fill)
		ann := &party{key: newKey(t, e.kind)}
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: e.mail}, EmailAddresses: []string{e.mail},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, e.issuer.cert, ann.key.Public(), e.issuer.key)
		if err == nil {
			ann.cert, err = x509.ParseCertificate(der)
		}
		if err != nil {
			t.Fatal(err)
		}
		swanFile(t, s, "x509ca/ca.pem", "CERTIFICATE", e.ca.cert.Raw)
		swanFile(t, s, "x509/ann.pem", "CERTIFICATE", ann.cert.Raw)
		swanKey(t, s, "ann.pem", ann.key)
		r.local = "auth = eap-tls\n      certs = ann.pem\n      id = " + e.id + e.extra
		r.remote = "auth = pubkey\n      cacerts = ca.pem\n      id = us.example"
		r.ours = func(p *ike.Peer, c *ike.Child) {
			p.PSK, p.LocalID = nil, ike.Identity{}
			p.Key, p.Certificates, p.CAs = gateway.key, []*x509.Certificate{gateway.cert}, []*x509.Certificate{e.ca.cert}
			p.EAP, p.RemoteID = true, "*@peer.example"
			p.Pools, c.RemoteTS = []netip.Prefix{netip.MustParsePrefix("10.9.0.0/24"), netip.MustParsePrefix("fd09::/112")}, nil
			if e.revoke {
				p.CRLs = []*x509.RevocationList{revocation(t, e.ca, ann.cert)}
			}
		}
	}
	return r
}

// eapFiles are what a row needs, before the certificates are made.
type eapFiles struct {
	ca, issuer *party // of the gateway's certificate and of the caller's
	kind       string
	fill       int
	mail, id   string // in the certificate, and in IDi
	extra      string // more lines of "local"
	revoke     bool
}

func revocation(t testing.TB, ca *party, c *x509.Certificate) *x509.RevocationList {
	t.Helper()
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: c.SerialNumber, RevocationTime: time.Now().Add(-time.Minute)}}}, ca.cert, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := x509.ParseRevocationList(der)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// spoke wants the peer to have spoken a version of TLS, and goes on.
func spoke(tls string, next func(*play)) func(*play) {
	return func(p *play) {
		if !contains(p.site.peer.Log(), "negotiated "+tls+" ") {
			p.Errorf("the peer did not speak %s", tls)
		}
		if next != nil {
			next(p)
		}
	}
}

// eapRows are remote users with a certificate of their own, by a version of TLS.
func eapRows(tls string) []row {
	refused := func(name string) row {
		return row{name: name, failure: ike.BadCertificate, theirs: "EAP_TLS method failed"}
	}
	return []row{
		eapRow(row{name: "EAP-TLS, address from our pool", after: spoke(tls, rekeyOnce("us", "child"))}, nil),
		eapRow(row{name: "EAP-TLS, rsa, long certificates in fragments", after: spoke(tls, rekeyOnce("peer", "ike"))}, func(_ testing.TB, e *eapFiles) { e.kind, e.fill = "rsa-3072", 40 }),
		eapRow(row{name: "EAP-TLS, IDi is an address, the EAP identity is asked for", after: spoke(tls, nil)}, func(_ testing.TB, e *eapFiles) {
			e.id, e.extra = "10.77.0.1", "\n      eap_id = ann@peer.example"
		}),
		eapRow(refused("EAP-TLS, a certificate of another CA"), func(t testing.TB, e *eapFiles) { e.issuer = issue(t, nil, "another CA", "ecdsa-256", 0) }),
		eapRow(refused("EAP-TLS, a revoked certificate"), func(_ testing.TB, e *eapFiles) { e.revoke = true }),
		eapRow(refused("EAP-TLS, a name that the policy does not have"), func(_ testing.TB, e *eapFiles) {
			e.mail, e.id, e.extra = "ann@elsewhere.example", "10.77.0.1", "\n      eap_id = ann@elsewhere.example"
		}),
	}
}
