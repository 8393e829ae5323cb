package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/ipfw/ipfw/rules"
)

// pki is a folder with a small certificate authority:
//
//	ca.key  ca.pem  ca.crl     its key (0600), certificate, revocations
//	NAME.key  NAME.pem         what was issued
type pki struct {
	dir     string
	now     time.Time
	crlDays int // how long a new list of revocations holds; 0 where none is made
}

func (p pki) path(name string) string { return filepath.Join(p.dir, name) }

// How long certificates hold. Apple's systems take no more than 825 days.
const (
	caYears   = 10
	leafDays  = 825
	crlDays   = 90        // unless told otherwise
	slackTime = time.Hour // clocks that are behind
)

// keyKinds are the keys that can be made.
var keyKinds = []string{"ecdsa", "ed25519"}

func newKey(kind string) (crypto.Signer, error) {
	switch kind {
	case "ecdsa":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ed25519":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, usagef("there is no kind of key %q: it is one of %s", kind, strings.Join(keyKinds, ", "))
}

// writeNew writes a file that must not be there yet: keys are never overwritten.
func writeNew(path, kind string, der []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already: remove it first, if nothing needs it any more", path)
	}
	if err != nil {
		return err
	}
	return errors.Join(pem.Encode(f, &pem.Block{Type: kind, Bytes: der}), f.Close())
}

func writeKey(path string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	defer clear(der)
	return writeNew(path, "PRIVATE KEY", der, 0o600)
}

// maxPEM is far more than a certificate, a key or a list of revocations takes.
const maxPEM = 4 << 20

// readPEM reads the first block of a type.
func readPEM(path, kind string) ([]byte, error) {
	text, err := rules.ReadFile(path, maxPEM)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == kind {
			return block.Bytes, nil
		}
	}
	return nil, fmt.Errorf("%s holds no %s", path, strings.ToLower(kind))
}

// pair reads a certificate and its key.
func (p pki) pair(name string) (*x509.Certificate, crypto.Signer, error) {
	der, err := readPEM(p.path(name+".pem"), "CERTIFICATE")
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	if der, err = readPEM(p.path(name+".key"), "PRIVATE KEY"); err != nil {
		return nil, nil, err
	}
	defer clear(der)
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, nil, fmt.Errorf("%s holds no private key that ipfw can read", p.path(name+".key"))
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("%s holds a key that cannot sign", p.path(name+".key"))
	}
	return cert, signer, nil
}

// ca reads the authority.
func (p pki) ca() (*x509.Certificate, crypto.Signer, error) {
	cert, key, err := p.pair("ca")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%s has no certificate authority: `ipfw pki init` makes one", p.dir)
	}
	return cert, key, err
}

func serial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	return n.Add(n, big.NewInt(1)), nil
}

// init makes the authority.
func (p pki) init(name string) error {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return err
	}
	key, err := newKey("ecdsa")
	if err != nil {
		return err
	}
	n, err := serial()
	if err != nil {
		return err
	}
	t := &x509.Certificate{
		SerialNumber: n, Subject: pkix.Name{CommonName: name},
		NotBefore: p.now.Add(-slackTime), NotAfter: p.now.AddDate(caYears, 0, 0),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return err
	}
	if err := writeKey(p.path("ca.key"), key); err != nil {
		return err
	}
	if err := writeNew(p.path("ca.pem"), "CERTIFICATE", der, 0o644); err != nil {
		return err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	return p.writeCRL(cert, key, nil)
}

// goodName is what a file may be called after, and what IKE knows as a name.
var goodName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@:-]{0,62}$`)

func checkName(name string) error {
	if !goodName.MatchString(name) || strings.EqualFold(name, "ca") {
		return usagef("%q cannot be a name: take a host name, a mail address or an IP address, and not \"ca\"", name)
	}
	return nil
}

// issue makes a key and a certificate for a host or a person. more are other
// names it may go by.
func (p pki) issue(name, kind string, more []string) error {
	if err := checkName(name); err != nil {
		return err
	}
	ca, caKey, err := p.ca()
	if err != nil {
		return err
	}
	key, err := newKey(kind)
	if err != nil {
		return err
	}
	n, err := serial()
	if err != nil {
		return err
	}
	t := &x509.Certificate{
		SerialNumber: n, Subject: pkix.Name{CommonName: name},
		NotBefore: p.now.Add(-slackTime), NotAfter: p.now.AddDate(0, 0, leafDays),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		// RFC 4945 section 5.1.3.12 asks for none; Windows and Apple do.
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if t.NotAfter.After(ca.NotAfter) {
		t.NotAfter = ca.NotAfter
	}
	for _, s := range append([]string{name}, more...) {
		if a, err := netip.ParseAddr(s); err == nil {
			t.IPAddresses = append(t.IPAddresses, net.IP(a.Unmap().AsSlice()))
		} else if strings.Contains(s, "@") {
			t.EmailAddresses = append(t.EmailAddresses, s)
		} else {
			t.DNSNames = append(t.DNSNames, s)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, ca, key.Public(), caKey)
	if err != nil {
		return err
	}
	if err := writeKey(p.path(name+".key"), key); err != nil {
		return err
	}
	return writeNew(p.path(name+".pem"), "CERTIFICATE", der, 0o644)
}

// revoke puts a certificate on the list of those that count no more.
func (p pki) revoke(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	ca, caKey, list, err := p.revocations()
	if err != nil {
		return err
	}
	der, err := readPEM(p.path(name+".pem"), "CERTIFICATE")
	if err != nil {
		return err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	for _, e := range list {
		if e.SerialNumber.Cmp(cert.SerialNumber) == 0 {
			return fmt.Errorf("%s is revoked already, since %s", name, e.RevocationTime.Format(time.DateTime))
		}
	}
	return p.writeCRL(ca, caKey, append(list, x509.RevocationListEntry{SerialNumber: cert.SerialNumber, RevocationTime: p.now}))
}

// renew makes the list anew, with what is on it, and gives until when it holds.
func (p pki) renew() (until time.Time, err error) {
	ca, key, list, err := p.revocations()
	if err != nil {
		return until, err
	}
	return p.crlEnd(ca), p.writeCRL(ca, key, list)
}

// revocations reads the authority and what it has revoked. A list of somebody
// else is not taken: one that is empty would bring everybody back.
func (p pki) revocations() (*x509.Certificate, crypto.Signer, []x509.RevocationListEntry, error) {
	ca, key, err := p.ca()
	if err != nil {
		return nil, nil, nil, err
	}
	der, err := readPEM(p.path("ca.crl"), "X509 CRL")
	if err != nil {
		return nil, nil, nil, err
	}
	crl, err := x509.ParseRevocationList(der)
	if err == nil {
		err = crl.CheckSignatureFrom(ca)
	}
	if err != nil {
		return nil, nil, nil, fmt.Errorf("%s is no list of this authority: bring back the last good copy: %w", p.path("ca.crl"), err)
	}
	return ca, key, crl.RevokedCertificateEntries, nil
}

// crlEnd is when a list that is made now counts no more: not after the
// authority itself.
func (p pki) crlEnd(ca *x509.Certificate) time.Time {
	end := p.now.AddDate(0, 0, p.crlDays)
	if end.After(ca.NotAfter) {
		return ca.NotAfter
	}
	return end
}

// writeCRL replaces the list. It holds for a short time only, so that a host
// with a stale copy notices (RFC 5280 section 5.1.2.5): a list that has expired
// counts as if everybody were revoked.
func (p pki) writeCRL(ca *x509.Certificate, key crypto.Signer, list []x509.RevocationListEntry) error {
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(p.now.UnixNano()), ThisUpdate: p.now.Add(-slackTime), NextUpdate: p.crlEnd(ca), RevokedCertificateEntries: list,
	}, ca, key)
	if err != nil {
		return err
	}
	tmp := p.path("ca.crl.new")
	text := pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
	if err := os.WriteFile(tmp, text, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, p.path("ca.crl"))
}

// rawKey makes a key pair without any authority: DIR/NAME.key, and
// DIR/NAME.pub for the peers, which it gives.
func rawKey(dir, name, kind string) (public []byte, err error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, "peers"), 0o755); err != nil {
		return nil, err
	}
	key, err := newKey(kind)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	if err := writeKey(filepath.Join(dir, name+".key"), key); err != nil {
		return nil, err
	}
	if err := writeNew(filepath.Join(dir, name+".pub"), "PUBLIC KEY", der, 0o644); err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}
