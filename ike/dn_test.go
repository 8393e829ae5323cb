package ike

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

// derOf makes a name: parts root first, each "OID:tag:value" with "&" between
// attributes.
func derOf(t testing.TB, parts ...string) string {
	t.Helper()
	var list []derRDNSET
	for _, p := range parts {
		var set derRDNSET
		for _, s := range strings.Split(p, "&") {
			f := strings.SplitN(s, ":", 3)
			kind, err := dnTypeNamed(f[0])
			if err != nil {
				t.Fatal(err)
			}
			var tag int
			if _, err := fmt.Sscan(f[1], &tag); err != nil {
				t.Fatal(err)
			}
			pat, err := dnPattern{parts: []dnPart{{attrs: []dnWritten{{kind: kind, value: []string{"x"}}}}}}.der()
			if err != nil {
				t.Fatal(err)
			}
			var one []derRDNSET
			if _, err := asn1.Unmarshal(pat, &one); err != nil {
				t.Fatal(err)
			}
			set = append(set, derAttr{one[0][0].Type, asn1.RawValue{Tag: tag, Bytes: []byte(f[2])}})
		}
		list = append(list, set)
	}
	der, err := asn1.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	return string(der)
}

// Names are compared by value (RFC 5280 section 7.1).
func TestNamesAreComparedByValue(t *testing.T) {
	for _, row := range []struct {
		same bool
		a, b []string
	}{
		{true, []string{"C:19:CH", "O:12:Example", "CN:12:them"}, []string{"C:19:CH", "O:19:Example", "CN:19:them"}},
		{true, []string{"O:19:Example"}, []string{"O:12:EXAMPLE"}},
		{true, []string{"O:12:Büro"}, []string{"O:12:BÜRO"}},
		{true, []string{"O:12:B\u00fcro"}, []string{"O:12:Bu\u0308ro"}}, // NFC and NFD
		{true, []string{"O:12:Büro"}, []string{"O:30:\x00B\x00\xfc\x00r\x00o"}},
		{true, []string{"O:12:Büro"}, []string{"O:28:\x00\x00\x00B\x00\x00\x00\xfc\x00\x00\x00r\x00\x00\x00o"}},
		{true, []string{"O:12:Straße"}, []string{"O:12:STRASSE"}},
		{true, []string{"O:12: My   Company "}, []string{"O:19:my company"}},
		{true, []string{"DC:22:Example"}, []string{"DC:22:example"}},
		{true, []string{"E:22:Ann@Example.org"}, []string{"E:12:ann@example.ORG"}},
		{true, []string{"CN:12:them&serialNumber:19:42"}, []string{"serialNumber:19:42&CN:19:Them"}},
		{true, []string{"CN:20:them"}, []string{"CN:19:them"}},
		{true, []string{"CN:3:\x00\x01"}, []string{"CN:3:\x00\x01"}}, // no text: as bytes

		{false, []string{"CN:3:\x00\x01"}, []string{"CN:3:\x00\x02"}},
		{false, []string{"CN:28:\x00\x00\x00a"}, []string{"CN:28:\x00\x00\x00b"}},
		{false, []string{"CN:12:a\x00"}, []string{"CN:12:a"}},
		{false, []string{"CN:12:a\u200b"}, []string{"CN:12:a"}}, // looks the same
		{false, []string{"CN:12:a\u202e"}, []string{"CN:12:a"}},
		{false, []string{"CN:20:B\xfcro"}, []string{"CN:12:Büro"}}, // T61String is not agreed on
		{false, []string{"CN:12:my company"}, []string{"CN:12:mycompany"}},
		{false, []string{"O:12:Example", "CN:12:them"}, []string{"CN:12:them", "O:12:Example"}},
		{false, []string{"CN:12:them", "serialNumber:19:42"}, []string{"CN:12:them&serialNumber:19:42"}},
		{false, []string{"O:12:Example"}, []string{"O:12:Example", "CN:12:them"}},
		{false, []string{"O:12:Example"}, []string{"OU:12:Example"}},
		{false, []string{"CN:12:a\x03\x00" + "2.5.4.10\x02b"}, []string{"CN:12:a", "O:12:b"}},
	} {
		a, b := Identity{idDN, derOf(t, row.a...)}, Identity{idDN, derOf(t, row.b...)}
		if a.same(b) != row.same || b.same(a) != row.same {
			t.Errorf("%s and %s: the same %v, want %v", a, b, a.same(b), row.same)
		}
		if (a.folded() == b.folded()) != row.same {
			t.Errorf("%s and %s: folded the same %v, want %v", a, b, !row.same, row.same)
		}
		if got := a.inCertificate(&x509.Certificate{RawSubject: []byte(b.Data)}); got != row.same {
			t.Errorf("%s in the certificate of %s: %v, want %v", a, b, got, row.same)
		}
	}
}

// What a policy writes fits the subjects of certificates that openssl makes, in
// the order of either program, with all that people have in names.
func TestPatternsOfNames(t *testing.T) {
	for _, row := range []struct {
		pattern string
		want    bool
		subject []string
	}{
		// The rows of the report: string types of openssl, all ways to write it.
		{"CN=them,O=Example,C=CH", true, []string{"C:19:CH", "O:12:Example", "CN:12:them"}},
		{"C=CH, O=Example, CN=them", true, []string{"C:19:CH", "O:12:Example", "CN:12:them"}},
		{"C = CH, O = Example, CN = them", true, []string{"C:19:CH", "O:12:Example", "CN:12:them"}},
		{"/C=CH/O=Example/CN=them", true, []string{"C:19:CH", "O:12:Example", "CN:12:them"}},
		{"cn=Them,o=example,c=ch", true, []string{"C:19:CH", "O:12:Example", "CN:12:them"}},
		{"CN=them,O=Example,*", true, []string{"C:19:CH", "O:12:Example", "CN:12:them"}},
		{"C=CH, O=Example, *", false, []string{"C:19:DE", "O:12:Example", "CN:12:them"}},
		{"C=CH, O=Example, CN=*", true, []string{"C:19:CH", "O:12:Example", "CN:12:them"}},
		{"C=CH, O=Example, *", true, []string{"C:19:CH", "O:12:Example", "CN:12:them"}},
		{"CN=them,O=Büro,C=CH", true, []string{"C:19:CH", "O:12:Büro", "CN:12:them"}},
		{`CN=them,O=B\C3\BCro,C=CH`, true, []string{"C:19:CH", "O:12:Büro", "CN:12:them"}},
		{"CN=them,DC=example,DC=org", true, []string{"DC:22:org", "DC:22:example", "CN:12:them"}},
		{"DC=org, DC=example, CN=them", true, []string{"DC:22:org", "DC:22:example", "CN:12:them"}},
		{"CN=*,DC=example,DC=org", true, []string{"DC:22:org", "DC:22:example", "CN:12:them"}},
		{"DC=org, DC=example, *", true, []string{"DC:22:org", "DC:22:example", "CN:12:Users", "CN:12:ann"}},
		{"UID=ann,O=Example", true, []string{"O:12:Example", "UID:12:ann"}},
		{"E=ann@example.org,CN=ann,O=Example", true, []string{"O:12:Example", "CN:12:ann", "E:22:ann@example.org"}},
		{"O=Example, CN=ann, emailAddress=ann@example.org", true, []string{"O:12:Example", "CN:12:ann", "E:22:ann@example.org"}},
		{"E=*@example.org,*", true, []string{"O:12:Example", "CN:12:ann", "E:22:ann@example.org"}},
		{"CN=them+SERIALNUMBER=42,O=Example", true, []string{"O:12:Example", "CN:12:them&serialNumber:19:42"}},
		{"O = Example, CN = them + serialNumber = 42", true, []string{"O:12:Example", "serialNumber:19:42&CN:12:them"}},
		{"CN=*+SERIALNUMBER=42,O=Example", true, []string{"O:12:Example", "CN:12:them&serialNumber:19:42"}},
		{"CN=them,*", true, []string{"O:12:Example", "CN:12:them"}},
		{"CN=them,*", true, []string{"CN:12:them"}},
		{"CN=*,O=Example", true, []string{"O:12:Example", "OU:12:Site", "CN:12:them"}}, // any run of characters
		{"CN=gw *,O=Example", true, []string{"O:12:Example", "CN:12:GW  7"}},
		{"1.3.6.1.4.1.99999.1=x,O=Example", true, []string{"O:12:Example", "1.3.6.1.4.1.99999.1:12:x"}},
		{"OID.2.5.4.3=#0c0474686565,O=Example", true, []string{"O:12:Example", "CN:19:thee"}},
		{`CN=them,O="Example, Inc."`, true, []string{"O:12:Example, Inc.", "CN:12:them"}},
		{`CN=them,O=Example\, Inc.`, true, []string{"O:12:Example, Inc.", "CN:12:them"}},
		{"CN=them,O=A+B", true, []string{"O:12:A+B", "CN:12:them"}},
		{"CN=them,O=A=B", true, []string{"O:12:A=B", "CN:12:them"}},
		{`CN=\*,O=Example`, true, []string{"O:12:Example", "CN:12:*"}},

		// A certificate that is the wrong way round, as by openssl -subj "/CN=them/O=Example".
		{"CN=them, O=Example", true, []string{"CN:12:them", "O:12:Example"}},
		{"O=Example,CN=them", true, []string{"CN:12:them", "O:12:Example"}},
		{"/CN=them/O=Example", true, []string{"CN:12:them", "O:12:Example"}},
		{"/CN=them/O=Example", false, []string{"O:12:Example", "CN:12:them"}},
		{"DC=example,DC=org", true, []string{"DC:22:org", "DC:22:example"}},
		{"DC=example,DC=org", false, []string{"DC:22:example", "DC:22:org"}},

		// What somebody has had written into a name is not another part of it.
		{"CN=*,O=Example,*", false, []string{"C:19:CH", "O:12:Other", "CN:12:x,O=Example,y"}},
		{"CN=*,O=Example", false, []string{"O:12:Other", `CN:12:x,O=Example`}},
		{"CN=*,O=Example", false, []string{"O:12:Other", "OU:12:Example", "CN:12:x"}},
		{"CN=them,*", false, []string{"O:12:Example", "CN:12:themselves"}},
		{"CN=them,*", false, []string{"CN:12:them", "O:12:Example"}},
		{"CN=them,O=Example", false, []string{"O:12:Example", "CN:12:them&serialNumber:19:42"}},
		{`CN=\*,O=Example`, false, []string{"O:12:Example", "CN:12:them"}},
		{"CN=ann,O=Example", false, []string{"O:12:Example", "CN:12:ann", "E:22:ann@example.org"}},
	} {
		if err := CheckPattern(row.pattern); err != nil {
			t.Error(err)
			continue
		}
		id := Identity{idDN, derOf(t, row.subject...)}
		if got := id.matches(row.pattern); got != row.want {
			t.Errorf("%q for %s: %v, want %v", row.pattern, id, got, row.want)
		}
		if !strings.Contains(row.pattern, "*") {
			same, err := ParseIdentity(row.pattern)
			if fits := same.same(id) || same.turned().same(id); err != nil || row.want && !fits {
				t.Errorf("%q is read as %s (%v), not as %s", row.pattern, same, err, id)
			}
		}
		if id.matches("CN=nobody,*") || (Identity{idFQDN, "them"}).matches(row.pattern) {
			t.Errorf("%q fits everybody", row.pattern)
		}
	}
}

// What nobody can fit is refused, with one sentence.
func TestUnreadableNames(t *testing.T) {
	for _, row := range [][2]string{
		{"CN=them,Example", `"Example" is not TYPE=VALUE`},
		{"CN=them,O=Example, Inc.,C=CH", `"Inc." is not TYPE=VALUE`},
		{"CN=them,XY=1", `"XY" is not a type`},
		{"CN=,O=Example", "CN has no value"},
		{"SN=42,O=Example", "write surname or serialNumber"},
		{"S=Bern,O=Example", "write ST or surname"},
		{"CN=a+CN=b", "CN stands twice"},
		{`CN="a`, "not closed"},
		{`CN=a\`, "backslash"},
		{`CN="a"b`, "follows a closing"},
		{"CN=#0c", "no DER"},
		{"CN=\\ff", "not UTF-8"},
		{"=a", "not a type"},
		{"1.99=a", "no OID"},
		{"192.0.2.*", "remote_endpoint"},
		{"2001:db8::*", "remote_endpoint"},
		{"192.0.2.0/24", "remote_endpoint"},
	} {
		err := CheckPattern(row[0])
		if err == nil || !strings.Contains(err.Error(), row[1]) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want a sentence with %q", row[0], err, row[1])
		}
	}
	for _, ok := range []string{"", "*", "gw.example.org", "192.0.2.1", "2001:db8::1", "*@example.org", "key-id:*", "key-id:a=b", "10.example.*"} {
		if err := CheckPattern(ok); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for _, bad := range []string{"", "*.example.org", "CN=*,O=Example", "CN=" + strings.Repeat("x", 1100)} {
		if err := CheckIdentity(bad); err == nil {
			t.Errorf("local_id %.20q is taken", bad)
		}
	}
	if err := CheckIdentity("key-id:*"); err != nil {
		t.Error(err)
	}
}

// What is printed is read again as the same, and what is read never panics.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"CN=them,O=Example,C=CH", "C=CH, O=Example, CN=*", `/O="a, b"/CN=\2a`, "CN=a+serialNumber=1", "1.2.3=#0c0161", "*,CN=ß"} {
		f.Add(s, "")
	}
	f.Add("", derOf(f, "O:12:B\u00fcro ", "CN:30:\x00a&UID:3:\x00\x01", "1.2.3:12:x"))
	f.Fuzz(func(t *testing.T, text, der string) {
		if id, err := ParseIdentity(text); err == nil && id.Type == idDN {
			if n, err := readDN([]byte(id.Data)); err != nil || len(n) == 0 {
				t.Fatalf("%q makes %x: %v", text, id.Data, err)
			}
			if !id.matches(text) {
				t.Fatalf("%q does not fit itself, %s", text, id)
			}
		}
		p, err := parseDNPattern(text)
		if err == nil && len(p.canonical()) < 1 {
			t.Fatal("no pattern")
		}
		n, err := readDN([]byte(der))
		if err != nil {
			return
		}
		if q, err := parseDNPattern(text); err == nil {
			// The slow twin of a pattern without a star: equality.
			if want, _ := q.der(); !q.star && q.fits(n) {
				id := Identity{idDN, string(want)}
				if o := (Identity{idDN, der}); !o.same(id) && !o.turned().same(id) {
					t.Fatalf("%q fits %x, and is not the same", text, der)
				}
			}
		}
		s := n.String()
		if len(n) == 0 || !utf8.ValidString(s) {
			return
		}
		twice := false
		for _, part := range n {
			for i, a := range part {
				for _, b := range part[:i] {
					twice = twice || a.oid == b.oid
				}
				twice = twice || a.plain && a.text == ""
			}
		}
		p, err = parseDNPattern(s)
		if err != nil && !twice {
			t.Fatalf("%x is printed as %q, which is not read: %v", der, s, err)
		}
		if err == nil && !p.fits(n) && !p.fits(n.reversed()) {
			t.Fatalf("%x is printed as %q, which does not fit it", der, s)
		}
	})
}
