package ike

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ipfw/ipfw/packet"
)

// noTrust tells why the certificate of a peer is not good, and which of our own
// files may be at fault for it: none where it is the peer's that has ended.
func (p *Peer) noTrust(c *claim, err error) *authError {
	var invalid x509.CertificateInvalidError
	var unknown x509.UnknownAuthorityError
	var list crlError
	why := strings.TrimPrefix(err.Error(), "x509: ")
	switch {
	case errors.As(err, &list):
		return authFail(BadCertificate, "crl", "certificate of %s: %s", c.id, why)
	case errors.As(err, &unknown):
		return authFail(BadCertificate, "ca", "certificate of %s: %s", c.id, p.untrusted(c.shown.certs))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && slices.ContainsFunc(c.shown.certs, invalid.Cert.Equal):
		return authFail(BadCertificate, "", "certificate of %s: %s; it is the peer's to renew, or a clock is wrong", c.id, why)
	case errors.As(err, &invalid) && invalid.Reason != x509.Expired:
		return authFail(BadCertificate, "", "certificate of %s: %s; it is the peer's to change", c.id, why)
	}
	return authFail(BadCertificate, "ca", "certificate of %s: %s", c.id, why)
}

// untrusted says by whom a chain of certificates, leaf first, is signed, which is none
// of our CAs, and what these are. It goes by names and checks no signature: whoever
// sends it has proved nothing yet.
func (p *Peer) untrusted(chain []*x509.Certificate) string {
	top := chain[0]
	for range chain { // as far as the peer has sent issuers
		i := slices.IndexFunc(chain, func(c *x509.Certificate) bool { return c != top && bytes.Equal(c.RawSubject, top.RawIssuer) })
		if i < 0 || bytes.Equal(top.RawSubject, top.RawIssuer) {
			break
		}
		top = chain[i]
	}
	by := "it is signed by itself, " + caText(top)
	switch {
	case bytes.Equal(top.RawIssuer, top.RawSubject) && top != chain[0]:
		by = "it is signed by " + caText(top)
	case !bytes.Equal(top.RawIssuer, top.RawSubject):
		by = "it is signed by " + shortName(top.Issuer.String())
		if len(top.AuthorityKeyId) > 0 {
			by += fmt.Sprintf(" (key identifier %s)", octets(top.AuthorityKeyId))
		}
	}
	const most = 4
	var ours []string
	namesake := false
	for i, ca := range p.CAs {
		namesake = namesake || bytes.Equal(ca.RawSubject, top.RawIssuer)
		if i < most {
			ours = append(ours, caText(ca))
		}
	}
	if n := len(p.CAs) - most; n > 0 {
		ours = append(ours, fmt.Sprintf("and %d more", n))
	}
	if namesake {
		by += ", a CA of that name with another key than ours"
	}
	return fmt.Sprintf("%s, and we trust %s: add the peer's CA to ca, or give the peer a certificate of ours", by, strings.Join(ours, ", "))
}

// caText names a CA: its subject, and the fingerprint and the key identifier of which
// openssl prints the same first octets.
func caText(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	s := fmt.Sprintf("%s (SHA-256 fingerprint %s", shortName(c.Subject.String()), octets(sum[:]))
	if len(c.SubjectKeyId) > 0 {
		s += ", key identifier " + octets(c.SubjectKeyId)
	}
	return s + ")"
}

// octets gives the first octets of a fingerprint as openssl has them: "1A:2B:...".
func octets(b []byte) string {
	const most = 10
	var s []string
	for _, x := range b[:min(most, len(b))] {
		s = append(s, fmt.Sprintf("%02X", x))
	}
	if len(b) > most {
		s = append(s, "...")
	}
	return strings.Join(s, ":")
}

// shortName is a name for people, whose maker may have chosen any length.
func shortName(s string) string {
	const most = 100 // characters
	s = packet.Printable(s)
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "..."
	}
	if s == "" {
		return "an authority without a name"
	}
	return s
}
