package ike

import (
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// dname is a distinguished name as DER has it: the part next to the root first
// (RFC 5280 section 4.1.2.4).
type dname []rdn

// rdn is one part of a name; nearly always it has one attribute.
type rdn []dnAttr

// dnAttr is one attribute: a type and a value, which is text or something else.
type dnAttr struct {
	oid   string // dotted
	text  string // if it is text
	plain bool   // it is
	der   string // the value with its tag
}

// Tags of the string types that a name may have, X.680 section 8.4.
const (
	tagUTF8      = 12
	tagNumeric   = 18
	tagPrintable = 19
	tagT61       = 20
	tagIA5       = 22
	tagVisible   = 26
	tagUniversal = 28
	tagBMP       = 30
)

type derAttr struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

type derRDNSET []derAttr // encoding/asn1 knows a SET by the end of the type's name

func readDN(der []byte) (dname, error) {
	var list []derRDNSET
	rest, err := asn1.Unmarshal(der, &list)
	if err == nil && len(rest) != 0 {
		err = errors.New("bytes after the name")
	}
	if err != nil {
		return nil, err
	}
	n := make(dname, len(list))
	for i, set := range list {
		if len(set) == 0 {
			return nil, errors.New("a part of the name is empty")
		}
		for _, a := range set {
			t, plain := stringIn(&a.Value)
			n[i] = append(n[i], dnAttr{a.Type.String(), t, plain, string(a.Value.FullBytes)})
		}
	}
	return n, nil
}

// stringIn reads a value of any of the string types. Of T61String only what is
// ASCII is read: nobody agrees on the rest.
func stringIn(v *asn1.RawValue) (string, bool) {
	if v.Class != asn1.ClassUniversal || v.IsCompound {
		return "", false
	}
	b := v.Bytes
	switch v.Tag {
	case tagUTF8:
		return string(b), utf8.Valid(b)
	case tagNumeric, tagPrintable, tagT61, tagIA5, tagVisible:
		return string(b), !slices.ContainsFunc(b, func(c byte) bool { return c >= utf8.RuneSelf })
	case tagBMP:
		var s []rune
		for ; len(b) >= 2; b = b[2:] {
			s = append(s, rune(b[0])<<8|rune(b[1]))
		}
		return string(s), len(b) == 0 && !slices.ContainsFunc(s, utf16.IsSurrogate)
	case tagUniversal:
		var s []rune
		for ; len(b) >= 4; b = b[4:] {
			if b[0] != 0 {
				return "", false
			}
			s = append(s, rune(b[1])<<16|rune(b[2])<<8|rune(b[3]))
		}
		return string(s), len(b) == 0 && !slices.ContainsFunc(s, func(r rune) bool { return !utf8.ValidRune(r) })
	}
	return "", false
}

// Marks of a name in the form that is compared. No value holds them, so that
// nothing that somebody has had written into a name passes for another part.
const (
	markType  = "\x00" // before the type, and after the last value of the part before it
	markValue = "\x02" // between type and value
	markPlus  = "\x01" // between the attributes of a part
	markEnd   = "\x03" // after a part
	markDER   = "\x04" // before a value that is no text, in hexadecimal
)

// canonical is equal for names that RFC 5280 section 7.1 calls equal: it knows
// neither string types nor case, nor more than one space, nor the order within
// a part. Values are compared so whatever their type; those of DC and
// emailAddress have no case either (sections 7.3 and 4.1.2.6).
func (n dname) canonical() string {
	var b strings.Builder
	for _, part := range n {
		list := make([]string, len(part))
		for i, a := range part {
			v, ok := "", false
			if a.plain {
				v, ok = prepare(a.text)
			}
			if !ok {
				v = markDER + hex.EncodeToString([]byte(a.der))
			}
			list[i] = markType + a.oid + markValue + v
		}
		slices.Sort(list)
		b.WriteString(strings.Join(list, markPlus) + markEnd)
	}
	return b.String()
}

// reversed is the name with its parts the other way round.
func (n dname) reversed() dname {
	n = slices.Clone(n)
	slices.Reverse(n)
	return n
}

// prepare is the string preparation of RFC 4518 section 2, as RFC 5280 section
// 7.1 has it: case folding, NFKC, and spaces that do not count. What holds
// control characters, marks of direction and the like is not prepared: where
// the RFC leaves such out, we compare the bytes, so that names that look the
// same are not taken for each other.
func prepare(s string) (string, bool) {
	s, ok := fold(s)
	return strings.Join(strings.FieldsFunc(s, isSpace), " "), ok
}

func isSpace(r rune) bool { return unicode.Is(unicode.Zs, r) }

func fold(s string) (string, bool) {
	var b strings.Builder
	for _, r := range norm.NFKC.String(s) {
		if r == utf8.RuneError || !unicode.IsGraphic(r) {
			return "", false
		}
		if r == 'ß' || r == 'ẞ' { // RFC 3454 appendix B.2; other ligatures fall to NFKC
			b.WriteString("ss")
			continue
		}
		low := r
		for x := unicode.SimpleFold(r); x != r; x = unicode.SimpleFold(x) {
			low = min(low, x)
		}
		b.WriteRune(unicode.ToLower(low))
	}
	return norm.NFKC.String(b.String()), true
}

// String gives the form of RFC 4514, which ParseIdentity reads: the part next to
// the root last.
func (n dname) String() string {
	var b strings.Builder
	for i := len(n) - 1; i >= 0; i-- {
		for j, a := range n[i] {
			switch {
			case j > 0:
				b.WriteByte('+')
			case i < len(n)-1:
				b.WriteByte(',')
			}
			name, known := dnNames[a.oid]
			b.WriteString(or(name, a.oid) + "=")
			if a.plain && known {
				b.WriteString(escapeDN(a.text))
			} else {
				b.WriteString("#" + hex.EncodeToString([]byte(a.der)))
			}
		}
	}
	return b.String()
}

// escapeDN is RFC 4514 section 2.4. A star is escaped too, because it means
// something in a pattern.
func escapeDN(s string) string {
	var b strings.Builder
	for i, r := range s {
		last := i+utf8.RuneLen(r) == len(s)
		switch {
		case strings.ContainsRune(`,+"\<>;*`, r), r == '#' && i == 0, r == ' ' && (i == 0 || last):
			b.WriteString(`\` + string(r))
		case r == 0:
			b.WriteString(`\00`)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
