package lab

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"path/filepath"
)

// RawKeys makes a key pair for each name, in folders NAME/ of the test as a
// policy of that name would have them: own.key, and peers/ with the public keys
// of all.
func (l *Lab) RawKeys(ecdsaKeys bool, names ...string) {
	l.Helper()
	for _, n := range names {
		var key crypto.Signer
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if ecdsaKeys {
			key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		}
		if err != nil {
			l.Fatal(err)
		}
		private, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			l.Fatal(err)
		}
		public, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			l.Fatal(err)
		}
		l.File(filepath.Join(n, "own.key"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
		for _, m := range names {
			l.File(filepath.Join(m, "peers", n+".pub"), string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})))
		}
	}
}
