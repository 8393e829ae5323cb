package attack

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// What a stranger calls himself is printed so that it is one line of text.
func TestWordsOfStrangers(t *testing.T) {
	a := attack(t, "G15", offPath, "terminal escapes and a forged line in a distinguished name")
	a.each(t, func(t *testing.T, v *family) {
		s := newSite(t, v)
		d := s.run(s.callers(""))
		forged := "00:00:00.000  ike: all is well " + marker("forged")
		text := "x \x1b[2J\x1b]0;owned\a\n" + forged + "\n\u202e\u009b31m"
		dn, err := asn1.Marshal(pkix.RDNSequence{{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: text}}})
		if err != nil {
			t.Fatal(err)
		}
		for i, id := range [][]byte{append([]byte{9, 0, 0, 0}, dn...), append([]byte{2, 0, 0, 0}, text...), append([]byte{3, 0, 0, 0}, "a@"+text...), append([]byte{11, 0, 0, 0}, text...)} {
			c := newInitiator(t, s.beyond, s.v.far, v.self)
			if _, err := c.begin(groupX25519, 30); err != nil {
				t.Fatal(err)
			}
			list, err := c.request(exAuth, 30, append([]payloadOf{{plIDi, id}, c.authPSK(id, "not the secret of anybody")},
				childPayloads(uint32(0x7001+i), netip.PrefixFrom(v.inner, v.inner.BitLen()), netip.PrefixFrom(v.self, v.self.BitLen()))...)...)
			if err != nil {
				t.Fatal(err)
			}
			if _, refused := notified(list, authFailed); !refused {
				t.Errorf("a wrong key: %s", notice(list))
			}
			c.close()
		}
		told := ""
		eventually(t, "the refusals are told", func() bool {
			told = d.Ask("events")
			return strings.Contains(told, "forged") && strings.Count(told, "v") > 0
		})
		for what, out := range map[string]string{"events": told, "the log": d.Output(), "ike": d.Ask("ike"), "status": d.Ask("status")} {
			for line := range strings.Lines(out) {
				if strings.HasPrefix(strings.TrimSpace(line), "00:00:00.000") {
					t.Errorf("%s: a forged line: %q", what, line)
				}
				line = strings.TrimSuffix(line, "\n")
				if i := strings.IndexFunc(line, unprintable); i >= 0 {
					t.Errorf("%s: an unprintable character: %q", what, line)
				}
			}
		}
		a.saw(v.name, "escapes in events: %v; a forged line: %v", strings.IndexFunc(strings.ReplaceAll(told, "\n", ""), unprintable) >= 0, strings.Contains(told, "\n"+forged))
	})
}

// unprintable says that a character does something to a terminal.
func unprintable(r rune) bool {
	return r < ' ' && r != '\t' || r >= 0x7f && r < 0xa0 || slices.Contains([]rune{0x202a, 0x202b, 0x202c, 0x202d, 0x202e, 0x2066, 0x2067, 0x2068, 0x2069}, r)
}
