package lab

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"path/filepath"
	"time"
)

// DatedPKI makes an authority and certificates for client and server, as `ipfw pki`
// has them, in the folder ca; that of one of them holds between two dates.
func (l *Lab) DatedPKI(of string, from, until time.Time) {
	l.Helper()
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			l.Fatal(err)
		}
		return k
	}
	write := func(name, kind string, der []byte, err error) {
		if err != nil {
			l.Fatal(err)
		}
		l.File(filepath.Join("ca", name), string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
	}
	now, caKey := time.Now(), key()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotBefore: now.AddDate(-2, 0, 0), NotAfter: now.AddDate(2, 0, 0)}
	sign := func(c *x509.Certificate, pub crypto.PublicKey, name string) {
		der, err := x509.CreateCertificate(rand.Reader, c, ca, pub, caKey)
		write(name, "CERTIFICATE", der, err)
	}
	sign(ca, caKey.Public(), "ca.pem")
	for i, name := range []string{"client", "server"} {
		c := &x509.Certificate{SerialNumber: big.NewInt(int64(i + 2)), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
			KeyUsage: x509.KeyUsageDigitalSignature, NotBefore: now.AddDate(0, 0, -1), NotAfter: now.AddDate(1, 0, 0)}
		if name == of {
			c.NotBefore, c.NotAfter = from, until
		}
		k := key()
		sign(c, k.Public(), name+".pem")
		der, err := x509.MarshalPKCS8PrivateKey(k)
		write(name+".key", "PRIVATE KEY", der, err)
	}
}
