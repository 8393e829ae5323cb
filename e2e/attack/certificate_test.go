package attack

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/netip"
	"testing"
	"time"
)

// An IKE SA does not outlive the certificate of its peer.
func TestExpiredCertificate(t *testing.T) {
	a := attack(t, "G16", peer, "goes on after his certificate has expired")
	a.each(t, func(t *testing.T, v *family) {
		s := newSite(t, v)
		begun := time.Now()
		ca, caKey := issue(t, "CA of the test", nil, nil, begun.Add(time.Hour))
		own, ownKey := issue(t, "gateway.example", ca, caKey, begun.Add(time.Hour))
		ends := begun.Add(12 * time.Second).Truncate(time.Second)
		cert, key := issue(t, "ann.example", ca, caKey, ends)
		s.File("gateway/ca.pem", pemOf("CERTIFICATE", ca.Raw))
		s.File("gateway/own.pem", pemOf("CERTIFICATE", own.Raw))
		s.File("gateway/own.key", pkcs8(t, ownKey))
		s.run(s.callers("  certificate = \"own.pem\"\n  private_key = \"own.key\"\n  ca = \"ca.pem\"\n"))
		box := receive(t, s.gateway, v.any(9999))
		c := newInitiator(t, s.beyond, v.far, v.self)
		defer c.close()
		if _, err := c.begin(groupX25519, 30); err != nil {
			t.Fatal(err)
		}
		me := idFQDN("ann.example")
		list, err := c.request(exAuth, 30, append([]payloadOf{{plIDi, me}, {plCERT, append([]byte{4}, cert.Raw...)}, c.authEd25519(me, key)},
			childPayloads(0x7001, netip.PrefixFrom(v.inner, v.inner.BitLen()), netip.PrefixFrom(v.self, v.self.BitLen()))...)...)
		if err != nil {
			t.Fatal(err)
		}
		if find(list, plSA) == nil {
			if time.Now().After(ends.Add(-time.Second)) {
				t.Skip("SKIPPED: the machine is too busy: the certificate has expired before the handshake")
			}
			t.Fatalf("the certificate is good, and: %s", notice(list))
		}
		sa := c.child(s, v.far, list, c.ni, c.nr)
		n := 0
		carries := func() bool {
			for range 4 { // a datagram may be lost
				n++
				text := fmt.Sprintf("%s-%d", s.Name(), n)
				sa.send(udp(t, v.inner, 5000, v.self, 9999, text))
				if until(t, 500*time.Millisecond, func() bool { return box.has(text) }) {
					return true
				}
			}
			return false
		}
		if !carries() && time.Now().Before(ends) {
			t.Error("before its end the certificate's tunnel carries nothing")
		}
		time.Sleep(time.Until(ends))
		stopped := until(t, 20*time.Second, func() bool { return !carries() })
		if !stopped {
			t.Errorf("%v after the certificate has expired its tunnel still carries", time.Since(ends).Round(time.Second))
		}
		a.saw(v.name, "the tunnel ends with the certificate: %v", stopped)
	})
}

// issue makes a certificate, by itself if ca is nil.
func issue(t testing.TB, name string, ca *x509.Certificate, caKey ed25519.PrivateKey, end time.Time) (*x509.Certificate, ed25519.PrivateKey) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: end,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature}
	if ca == nil {
		c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign
		ca, caKey = c, key
	} else {
		c.DNSNames = []string{name}
	}
	b, err := x509.CreateCertificate(rand.Reader, c, ca, pub, caKey)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(b); err != nil {
		t.Fatal(err)
	}
	return c, key
}

func pemOf(kind string, b []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
}

func pkcs8(t testing.TB, key ed25519.PrivateKey) string {
	t.Helper()
	b, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pemOf("PRIVATE KEY", b)
}
