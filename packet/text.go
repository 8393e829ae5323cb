package packet

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Printable gives a text of others (an identity, a name in a certificate, the
// words of an error about them) in a form that is one line and does nothing to a
// terminal: control characters, C1 ones among them, line breaks, characters that
// change the direction of writing or are not seen, and bytes that are no UTF-8
// become Go's escapes (\x1b, \n, \u202e). What is printable stays, so that the
// second time changes nothing.
func Printable(s string) string {
	if !strings.ContainsFunc(s, unseen) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			b.WriteString(`\x` + string("0123456789abcdef"[s[0]>>4]) + string("0123456789abcdef"[s[0]&15]))
		case r != utf8.RuneError && unseen(r):
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		default:
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}

// unseen says that a character may not stand for itself; the replacement
// character is looked at again, because it may be a byte that is no UTF-8.
func unseen(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }
