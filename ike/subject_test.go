package ike

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"
	"time"
)

// Who calls itself by the subject of its certificate goes by the certificate's
// other names as well, on either side: by those of the certificate that proves
// it, and no others.
func TestSubjectAndNames(t *testing.T) {
	ca, other := newPKI(t), newPKI(t)
	subject := pkix.Name{CommonName: "Ann"}
	dn, err := ParseIdentity("CN=Ann")
	if err != nil {
		t.Fatal(err)
	}
	cert := func(x *Peer, by *pki, s pkix.Name, mail string) *x509.Certificate {
		return by.sign(t, &x509.Certificate{Subject: s, EmailAddresses: []string{mail}, DNSNames: []string{"ann.example"}}, x.Key.Public(), by.cert)
	}
	a := &Peer{Key: newKey(t, "ecdsa")}
	claims := &claim{id: dn, certs: [][]byte{cert(a, ca, pkix.Name{CommonName: "Bob"}, "ann@example.org").Raw}}
	if _, ok := claims.fits(&Peer{RemoteID: "*@example.org", CAs: []*x509.Certificate{ca.cert}}); ok {
		t.Error("the names of another subject's certificate count")
	}
	for name, row := range map[string]struct {
		change func(a, b *Peer) // a has a mail address and a host name in its certificate
		want   string           // what b knows a by
		fail   Failure          // what b reports
	}{
		"the subject itself":    {func(a, b *Peer) { b.RemoteID = "CN=*" }, "CN=Ann", NoFailure},
		"anybody":               {func(a, b *Peer) { b.RemoteID = "" }, "CN=Ann", NoFailure},
		"a mail address":        {func(a, b *Peer) { b.RemoteID = "*@example.org" }, "ann@example.org", NoFailure},
		"a host name":           {func(a, b *Peer) { b.RemoteID = "ann.example" }, "ann.example", NoFailure},
		"a name that is not in": {func(a, b *Peer) { b.RemoteID = "bob@example.org" }, "", UnknownPeer},
		"of another authority":  {func(a, b *Peer) { a.Certificates[0] = cert(a, other, subject, "ann@example.org") }, "", BadCertificate},
		"revoked": {func(a, b *Peer) {
			b.CRLs = []*x509.RevocationList{ca.revoke(t, simStart.Add(time.Hour), a.Certificates[0])}
		}, "", BadCertificate},
		"a pre-shared key of it": {func(a, b *Peer) { b.CAs, b.PSK = nil, []byte("a secret of sixteen bytes") }, "", UnknownPeer},
	} {
		t.Run(name, func(t *testing.T) {
			pa, pb := pskPeers()
			withCerts(t, ca, pa, pb, "ecdsa")
			pa.LocalID, pa.Certificates[0], pb.RemoteID = dn, cert(pa, ca, subject, "ann@example.org"), "*@example.org"
			row.change(pa, pb)
			s := newSim(t, 1)
			a, b := s.twoNodes(pa, pb)
			s.call(a, "b", "net")
			s.run(time.Minute)
			if b.failure() != row.fail {
				s.dump()
				t.Fatalf("failure %q, want %q", b.failure(), row.fail)
			}
			if row.fail != NoFailure {
				if len(b.sad) > 0 {
					t.Error("it has a child all the same")
				}
				return
			}
			check := func(b *node) {
				if got := b.theOne(t).remoteID.String(); got != row.want {
					t.Errorf("it is known as %s, want %s", got, row.want)
				}
			}
			check(b)
			// The other way round: the one that is called names itself so. Who
			// asks for one name gets an answer from nobody with another.
			if row.want == "ann.example" {
				return
			}
			s = newSim(t, 2)
			_, b = s.twoNodes(pa, pb)
			s.call(b, "a", "net")
			s.run(time.Minute)
			check(b)
		})
	}
}
