package packet

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"":                                   "",
		"CN=gw,O=Example":                    "CN=gw,O=Example",
		"CN=Bücher, 東京 \u00e9":               "CN=Bücher, 東京 é",
		"x\x1b[2J\x1b]0;owned\a\n00:00 fine": `x\x1b[2J\x1b]0;owned\a\n00:00 fine`,
		"a\r\tb\x00\x7f":                     `a\r\tb\x00\x7f`,
		"csi \u009b2J":                       `csi \u009b2J`,
		"raw \x9b2J\xff":                     `raw \x9b2J\xff`,
		"evil\u202egpj.exe\u2066\u200f":      `evil\u202egpj.exe\u2066\u200f`,
		"line\u2028next\u00a0\u200b":         `line\u2028next\u00a0\u200b`,
		`a\x1b`:                              `a\x1b`,
	} {
		if got := Printable(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("x\x1b[2J\x9b\u202e\ufffd")
	f.Fuzz(func(t *testing.T, s string) {
		got := Printable(s)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q becomes %q", s, got)
		}
		if Printable(got) != got {
			t.Errorf("%q becomes another the second time", s)
		}
		if utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }) && got != s {
			t.Errorf("%q, which is printable, becomes %q", s, got)
		}
	})
}
