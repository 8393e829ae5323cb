package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"
)

// must runs a command that has to succeed, and gives what it printed.
func must(t *testing.T, args ...string) string {
	t.Helper()
	r := ipfw(args...)
	if r.exit != 0 {
		t.Fatalf("ipfw %s: exit %d: %s", strings.Join(args, " "), r.exit, r.stderr.String())
	}
	return r.stdout.String()
}

func readCert(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	der, err := readPEM(path, "CERTIFICATE")
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The authority's certificates chain to it, speak for who they are for, and are
// revoked when they are.
func TestPKI(t *testing.T) {
	t.Chdir(t.TempDir())
	must(t, "pki", "init", "--dir", "ca")
	must(t, "pki", "issue", "vpn.example.org", "--dir", "ca", "--also", "192.0.2.1")
	must(t, "pki", "issue", "ann@example.org", "--dir", "ca", "--type", "ed25519")
	ca := readCert(t, "ca/ca.pem")
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	for name, check := range map[string]func(*x509.Certificate) bool{
		"vpn.example.org": func(c *x509.Certificate) bool {
			return c.DNSNames[0] == "vpn.example.org" && c.IPAddresses[0].String() == "192.0.2.1"
		},
		"ann@example.org": func(c *x509.Certificate) bool { return c.EmailAddresses[0] == "ann@example.org" && c.DNSNames == nil },
	} {
		c := readCert(t, "ca/"+name+".pem")
		if _, err := c.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: time.Unix(1700000000, 0)}); err != nil || !check(c) || c.IsCA {
			t.Errorf("%s: %v, DNS %v, IP %v, mail %v", name, err, c.DNSNames, c.IPAddresses, c.EmailAddresses)
		}
		info, err := os.Stat("ca/" + name + ".key")
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s.key: %v, %v", name, info.Mode(), err)
		}
	}

	revoked := func() int {
		der, err := readPEM("ca/ca.crl", "X509 CRL")
		if err != nil {
			t.Fatal(err)
		}
		crl, err := x509.ParseRevocationList(der)
		if err != nil || crl.CheckSignatureFrom(ca) != nil {
			t.Fatal(err)
		}
		return len(crl.RevokedCertificateEntries)
	}
	if revoked() != 0 {
		t.Error("the first list is not empty")
	}
	must(t, "pki", "revoke", "ann@example.org", "--dir", "ca")
	must(t, "pki", "revoke", "vpn.example.org", "--dir", "ca")
	if revoked() != 2 {
		t.Errorf("%d are revoked", revoked())
	}

	for _, bad := range [][]string{
		{"pki", "init", "--dir", "ca"},                     // would replace the authority
		{"pki", "issue", "vpn.example.org", "--dir", "ca"}, // would replace a key
		{"pki", "issue", "../up", "--dir", "ca"},
		{"pki", "issue", "ca", "--dir", "ca"},
		{"pki", "issue", "b", "--dir", "ca", "--type", "dsa"},
		{"pki", "issue", "b", "--dir", "nowhere"},
		{"pki", "revoke", "ann@example.org", "--dir", "ca"}, // twice
		{"pki", "revoke", "nobody", "--dir", "ca"},
		{"pki", "bundle", "nobody", "--dir", "ca", "--for", "apple", "--gateway", "x"},
		{"pki", "bundle", "vpn.example.org", "--dir", "ca", "--for", "os2", "--gateway", "x"},
		{"pki", "bundle", "vpn.example.org", "--dir", "ca", "--for", "strongswan", "--gateway", "x {"},
		{"pki", "bundle", "vpn.example.org", "--dir", "ca", "--for", "strongswan", "--gateway", "x", "--network", "here"},
	} {
		if r := ipfw(bad...); r.exit == 0 || r.stderr.Len() == 0 {
			t.Errorf("ipfw %s: exit %d", strings.Join(bad, " "), r.exit)
		}
	}
}

// A list of revocations holds for 90 days or as told, never longer than the
// authority, and is made anew with what is on it; another's list is not taken.
func TestPKIRevocationList(t *testing.T) {
	t.Chdir(t.TempDir())
	now := time.Unix(1700000000, 0)
	list := func(days, entries int) *x509.RevocationList {
		t.Helper()
		der, err := readPEM("ca/ca.crl", "X509 CRL")
		if err != nil {
			t.Fatal(err)
		}
		crl, err := x509.ParseRevocationList(der)
		if err != nil || crl.CheckSignatureFrom(readCert(t, "ca/ca.pem")) != nil {
			t.Fatal(err)
		}
		if want := now.AddDate(0, 0, days); crl.NextUpdate.Before(want) || crl.NextUpdate.After(want.Add(time.Minute)) {
			t.Errorf("it holds until %v, want %v", crl.NextUpdate, want)
		}
		if n := len(crl.RevokedCertificateEntries); n != entries {
			t.Errorf("%d are revoked, want %d", n, entries)
		}
		return crl
	}
	must(t, "pki", "init", "--dir", "ca")
	first := list(90, 0)
	must(t, "pki", "issue", "ann@example.org", "--dir", "ca")
	must(t, "pki", "revoke", "ann@example.org", "--dir", "ca", "--crl-days", "7")
	list(7, 1)
	if out := must(t, "pki", "crl", "--dir", "ca", "--crl-days", "30"); !strings.Contains(out, "2023-12-14") {
		t.Errorf("it says %q", out)
	}
	if renewed := list(30, 1); renewed.Number.Cmp(first.Number) < 0 {
		t.Errorf("number %v after %v", renewed.Number, first.Number)
	}
	must(t, "pki", "crl", "--dir", "ca", "--crl-days", "3660")
	der, _ := readPEM("ca/ca.crl", "X509 CRL")
	if crl, err := x509.ParseRevocationList(der); err != nil || !crl.NextUpdate.Equal(readCert(t, "ca/ca.pem").NotAfter) {
		t.Errorf("it holds longer than its authority: %v", err)
	}
	must(t, "pki", "init", "--dir", "other")
	text, _ := os.ReadFile("other/ca.crl")
	if err := os.WriteFile("ca/ca.crl", text, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]string{
		{"pki", "crl", "--dir", "ca"}, // another's list: ann would be back
		{"pki", "crl", "--dir", "nowhere"},
		{"pki", "crl", "--dir", "other", "--crl-days", "0"},
	} {
		if r := ipfw(bad...); r.exit == 0 || r.stderr.Len() == 0 {
			t.Errorf("ipfw %s: exit %d", strings.Join(bad, " "), r.exit)
		}
	}
}

var passphrase = regexp.MustCompile(`shown this once: (\S+)`)

// A bundle opens with what it says it opens with, and holds the right key.
func TestPKIBundle(t *testing.T) {
	t.Chdir(t.TempDir())
	must(t, "pki", "init", "--dir", "ca")
	must(t, "pki", "issue", "ann@example.org", "--dir", "ca")
	want := readCert(t, "ca/ann@example.org.pem")
	for _, kind := range bundleKinds() {
		out := must(t, "pki", "bundle", "ann@example.org", "--dir", "ca", "--for", kind, "--gateway", "vpn.example.org", "--network", "10.1.0.0/16", "--out", kind)
		pass := passphrase.FindStringSubmatch(out)
		var p12 []byte
		switch kind {
		case "windows":
			p12, _ = os.ReadFile("windows/ann@example.org.p12")
		case "apple":
			p12 = applePKCS12(t, "apple/ann@example.org.mobileconfig")
		default:
			if pass != nil {
				t.Errorf("%s: a pass phrase for nothing", kind)
			}
			found := false
			filepath.Walk(kind, func(path string, info os.FileInfo, err error) error {
				if text, _ := os.ReadFile(path); bytes.Contains(text, []byte("PRIVATE KEY")) {
					found = true
					if info.Mode().Perm() != 0o600 {
						t.Errorf("%s has mode %v", path, info.Mode())
					}
				}
				return err
			})
			if !found {
				t.Errorf("%s: no key", kind)
			}
			continue
		}
		key, cert, cas, err := pkcs12.DecodeChain(p12, pass[1])
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		if !cert.Equal(want) || len(cas) != 1 || !key.(*ecdsa.PrivateKey).PublicKey.Equal(want.PublicKey) {
			t.Errorf("%s: another certificate or key", kind)
		}
	}
	if text, _ := os.ReadFile("strongswan/conf.d/ipfw.conf"); !strings.Contains(string(text), "remote_ts = 10.1.0.0/16\n") {
		t.Errorf("strongswan:\n%s", text)
	}
	if entries, _ := os.ReadDir("ipfw"); len(entries) != 5 {
		t.Errorf("ipfw: %v", entries)
	}
	if r := ipfw("validate", "ipfw"); r.exit != 0 || strings.Contains(r.stderr.String(), "Ends soon") || strings.Contains(r.stderr.String(), "refused") {
		t.Errorf("ipfw: the policy is not good: %s%s", r.stdout.String(), r.stderr.String())
	}
	if r := ipfw("fmt", "-check", "ipfw/ipfw.hcl"); r.exit != 0 {
		t.Errorf("ipfw: the policy is not in the canonical form: %s%s", r.stdout.String(), r.stderr.String())
	}
	if text, _ := os.ReadFile("openiked/iked.conf"); !strings.Contains(string(text), "from dynamic to 10.1.0.0/16 \\\n") {
		t.Errorf("openiked:\n%s", text)
	}
}

// With --eap a bundle says so in the words of its system; OpenIKED has none.
func TestPKIBundleEAP(t *testing.T) {
	t.Chdir(t.TempDir())
	must(t, "pki", "init", "--dir", "ca")
	must(t, "pki", "issue", "ann@example.org", "--dir", "ca")
	for kind, want := range map[string]struct{ file, yes, no string }{
		"strongswan": {"conf.d/ipfw.conf", "auth = eap-tls\n      certs", "auth = pubkey\n      certs"},
		"windows":    {"connect.ps1", "-AuthenticationMethod Eap -EapConfigXmlStream $eap.EapConfigXmlStream", "MachineCertificate"},
		"apple":      {"ann@example.org.mobileconfig", "<string>None</string>\n\t\t\t\t<key>ExtendedAuthEnabled</key><integer>1</integer>\n\t\t\t\t<key>CertificateType", "<string>Certificate</string>"},
	} {
		for _, eap := range []bool{false, true} {
			args, out := []string{"pki", "bundle", "ann@example.org", "--dir", "ca", "--for", kind, "--gateway", "vpn.example.org", "--out", kind}, kind
			if eap {
				out += "-eap"
				args[len(args)-1] = out
				args = append(args, "--eap")
			}
			must(t, args...)
			text, err := os.ReadFile(filepath.Join(out, want.file))
			if err != nil || strings.Contains(string(text), want.yes) != eap || strings.Contains(string(text), want.no) == eap {
				t.Errorf("%s: %v\n%s", out, err, text)
			}
		}
	}
	applePKCS12(t, "apple-eap/ann@example.org.mobileconfig")
	must(t, "pki", "issue", "bob@example.org", "--dir", "ca", "--type", "ed25519")
	for _, kind := range []string{"windows", "apple"} {
		if r := ipfw("pki", "bundle", "bob@example.org", "--dir", "ca", "--for", kind, "--gateway", "x"); r.exit != 1 || !strings.Contains(r.stderr.String(), "--type ecdsa") {
			t.Errorf("%s takes an Ed25519 key: exit %d, %s", kind, r.exit, r.stderr.String())
		}
	}
	for _, kind := range []string{"openiked", "ipfw"} {
		if r := ipfw("pki", "bundle", "ann@example.org", "--dir", "ca", "--for", kind, "--gateway", "x", "--eap"); r.exit != 2 {
			t.Errorf("%s: exit %d", kind, r.exit)
		}
	}
}

// applePKCS12 reads a property list as far as is needed to find the key in it;
// it must be XML that a strict reader takes.
func applePKCS12(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d := xml.NewDecoder(bytes.NewReader(text))
	var list [][]byte
	for in := ""; ; {
		tok, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			in = tok.Name.Local
		case xml.CharData:
			if b, err := base64.StdEncoding.DecodeString(string(tok)); err == nil && in == "data" && len(b) > 0 {
				list = append(list, b)
			}
		case xml.EndElement:
			in = ""
		}
	}
	if len(list) != 2 {
		t.Fatalf("%d pieces of data, want the authority and the key", len(list))
	}
	return list[1]
}

// A raw key is printed as the peers need it, and never made over another.
func TestPKIKey(t *testing.T) {
	t.Chdir(t.TempDir())
	out := must(t, "pki", "key", "alpha", "--dir", "etc")
	block, _ := pem.Decode([]byte(out))
	if block == nil || block.Type != "PUBLIC KEY" {
		t.Fatalf("printed %q", out)
	}
	if _, err := x509.ParsePKIXPublicKey(block.Bytes); err != nil {
		t.Error(err)
	}
	if text, _ := os.ReadFile("etc/alpha.pub"); string(text) != out {
		t.Error("alpha.pub is not what was printed")
	}
	if info, err := os.Stat("etc/alpha.key"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("alpha.key: %v %v", info, err)
	}
	if r := ipfw("pki", "key", "alpha", "--dir", "etc"); r.exit == 0 {
		t.Error("a key was made over another")
	}
}
