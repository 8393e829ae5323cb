package ike

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"path"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/packet"
)

func TestIdentityPattern(t *testing.T) {
	for _, row := range []struct {
		pattern, id string
		want        bool
	}{
		{"", "a.example.org", true},
		{"*", "192.0.2.1", true},
		{"a.example.org", "A.Example.ORG", true},
		{"a.example.org", "b.example.org", false},
		{"*.example.org", "a.example.org", true},
		{"*.example.org", "a.b.example.org", true},
		{"*.example.org", "example.org", false},
		{"*.example.org", "a.example.org.evil.net", false},
		{"gw-*.example.org", "gw-7.example.org", true},
		{"gw-*.example.org", "7.example.org", false},
		{"*@example.org", "ann@Example.org", true},
		{"*@example.org", "ann@sub.example.org", false},
		{"ann@example.org", "Ann@example.org", false},
		{"ann-*@*.example.org", "ann-1@mail.example.org", true},
		{"*.example.org", "ann@a.example.org", false}, // another kind
		{"CN=*,O=Example", "CN=gw,O=Example", true},
		{"CN=*,O=Example", "CN=gw,O=Other", false},
		{"key-id:a*", "key-id:abc", true},
		{"192.0.2.1", "192.0.2.1", true},
		{"192.0.2.*", "192.0.2.1", false}, // a name, not an address
	} {
		id, err := ParseIdentity(row.id)
		if err != nil {
			t.Fatal(err)
		}
		if got := id.matches(row.pattern); got != row.want {
			t.Errorf("%q for %q: %v", row.pattern, row.id, got)
		}
	}
	if (Identity{}).matches("*") {
		t.Error("no identity fits a pattern")
	}
}

// glob agrees with the standard library's on what both can say.
func FuzzGlob(f *testing.F) {
	for _, s := range [][2]string{{"a*b*", "aXbY"}, {"*aa*", "aaa"}, {"a*a", "a"}, {"**", ""}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, s string) {
		if strings.ContainsAny(pattern+s, `?[\/`) {
			return
		}
		want, err := path.Match(pattern, s)
		if err != nil {
			return
		}
		if got := glob(pattern, s); got != want {
			t.Errorf("%q with %q: %v, want %v", pattern, s, got, want)
		}
	})
}

// TestNamesOfPeersArePrintable gives a peer a name that a terminal would obey.
func TestNamesOfPeersArePrintable(t *testing.T) {
	const hostile = "x\x1b[2J\x1b]0;owned\a\n00:00:00 ike: all is well \u202e\u009b"
	der, err := asn1.Marshal(pkix.Name{CommonName: hostile}.ToRDNSequence())
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []Identity{{idDN, string(der)}, {idFQDN, hostile}, {idRFC822, hostile}, {idKeyID, hostile}, {77, hostile}} {
		if s := id.String(); s != packet.Printable(s) || strings.ContainsAny(s, "\x1b\n\a") {
			t.Errorf("type %d: %q", id.Type, s)
		}
	}
	names := identitiesOf(&x509.Certificate{RawSubject: der, DNSNames: []string{hostile}, EmailAddresses: []string{hostile}})
	if names != packet.Printable(names) {
		t.Errorf("%q", names)
	}
}
