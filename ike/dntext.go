package ike

import (
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// dnType is a type of attribute, with all the names that RFC 4514, openssl,
// strongSwan and Windows write it by; the first is the one that we write.
type dnType struct {
	oid   string
	rank  int // how far from the root it stands in most names; 0 next to it
	tag   int // of its values; 0: PrintableString where that does, else UTF8String
	names []string
}

// Types of RFC 4519, RFC 5280 appendix A, and PKCS #9 (RFC 2985).
var dnTypes = []dnType{
	{"2.5.4.6", 0, tagPrintable, []string{"C", "countryName"}},
	{"0.9.2342.19200300.100.1.25", 0, tagIA5, []string{"DC", "domainComponent"}},
	{"2.5.4.8", 1, 0, []string{"ST", "stateOrProvinceName"}},
	{"2.5.4.7", 1, 0, []string{"L", "localityName"}},
	{"2.5.4.9", 1, 0, []string{"STREET", "streetAddress"}},
	{"2.5.4.17", 1, 0, []string{"postalCode"}},
	{"2.5.4.16", 1, 0, []string{"postalAddress"}},
	{"2.5.4.10", 2, 0, []string{"O", "organizationName"}},
	{"2.5.4.97", 2, 0, []string{"organizationIdentifier"}},
	{"2.5.4.11", 3, 0, []string{"OU", "organizationalUnitName"}},
	{"2.5.4.3", 4, 0, []string{"CN", "commonName"}},
	{"2.5.4.5", 4, tagPrintable, []string{"SERIALNUMBER"}},
	{"0.9.2342.19200300.100.1.1", 4, 0, []string{"UID", "userId"}},
	{"1.2.840.113549.1.9.1", 4, tagIA5, []string{"E", "emailAddress", "email"}},
	{"2.5.4.4", 4, 0, []string{"surname"}},
	{"2.5.4.42", 4, 0, []string{"GN", "givenName", "G"}},
	{"2.5.4.43", 4, 0, []string{"initials", "I"}},
	{"2.5.4.44", 4, 0, []string{"generationQualifier"}},
	{"2.5.4.12", 4, 0, []string{"title", "T"}},
	{"2.5.4.13", 4, 0, []string{"description", "D"}},
	{"2.5.4.20", 4, tagPrintable, []string{"telephoneNumber"}},
	{"2.5.4.41", 4, 0, []string{"name", "N"}},
	{"2.5.4.45", 4, 0, []string{"x500UniqueIdentifier", "ID"}},
	{"2.5.4.46", 4, tagPrintable, []string{"dnQualifier"}},
	{"2.5.4.65", 4, 0, []string{"pseudonym"}},
	{"2.16.840.1.113730.3.1.3", 4, 0, []string{"employeeNumber", "EN"}},
	{"1.2.840.113549.1.9.2", 4, 0, []string{"unstructuredName", "UN"}},
	{"1.2.840.113549.1.9.8", 4, 0, []string{"unstructuredAddress", "UA"}},
}

// dnByName finds a type by what it is called, in lower case; dnNames says how
// we call one.
var dnByName, dnNames = func() (map[string]*dnType, map[string]string) {
	by, names := map[string]*dnType{}, map[string]string{}
	for i := range dnTypes {
		t := &dnTypes[i]
		names[t.oid] = t.names[0]
		for _, n := range append(t.names, t.oid) {
			by[strings.ToLower(n)] = t
		}
	}
	return by, names
}()

// dnPart is one part of a name or a pattern, as it is written.
type dnPart struct {
	any   bool // a star alone: any number of parts, or none
	attrs []dnWritten
}

type dnWritten struct {
	kind  *dnType
	value []string // what stands between the stars; one: there is none
	der   []byte   // of a value written as #...
}

// dnPattern is a distinguished name as it is written, or a pattern of such.
type dnPattern struct {
	parts []dnPart // as they are written
	root  bool     // the part next to the root is written first, as in DER
	star  bool     // there is a star in it
	both  bool     // it is read in either order: see parseDNPattern
}

// parseDNPattern reads a distinguished name, of which a star stands for any run
// of characters. There are three ways to write one:
//
//	CN=gw,OU=Site 1,O=Example,C=CH     RFC 4514 and Windows: the part next to the root last
//	C=CH, O=Example, OU=Site 1, CN=gw  openssl and strongSwan: it comes first
//	/C=CH/O=Example/OU=Site 1/CN=gw    older openssl: it comes first
//
// The first two look the same, and are told by their ends: C and DC are next to
// the root, then come ST and L, O, OU, and all others. Such a name fits a
// certificate in either order, because there are those in which they are the
// wrong way round. Where both ends are alike, as in DC=example,DC=org, it is
// RFC 4514, and so it is where an end is a star, unless C or DC is written first.
// With slashes the order is as written.
func parseDNPattern(s string) (p dnPattern, err error) {
	sep, rest := byte(','), s
	if strings.HasPrefix(s, "/") {
		sep, rest = '/', s[1:]
	}
	for {
		var part dnPart
		if part, rest, err = parseDNPart(rest, sep); err != nil {
			return dnPattern{}, fmt.Errorf("%q is not a distinguished name: %w", s, err)
		}
		p.parts = append(p.parts, part)
		p.star = p.star || part.any || slices.ContainsFunc(part.attrs, func(a dnWritten) bool { return len(a.value) > 1 })
		if rest == "" {
			break
		}
		rest = rest[1:]
	}
	p.order(sep)
	return p, nil
}

// order finds out which end is next to the root.
func (p *dnPattern) order(sep byte) {
	var ranks []int
	for _, part := range p.parts {
		if !part.any && part.attrs[0].kind.rank >= 0 {
			ranks = append(ranks, part.attrs[0].kind.rank)
		}
	}
	switch ends := []bool{p.parts[0].any, p.parts[len(p.parts)-1].any}; {
	case sep == '/':
		p.root = true
	case ends[0] || ends[1]:
		p.root = !ends[0] && p.parts[0].attrs[0].kind.rank == 0
	case len(ranks) > 0:
		first, last := ranks[0], ranks[len(ranks)-1]
		p.root, p.both = first < last, first != last
	}
}

// parseDNPart reads up to the separator, which stays in front of the rest.
func parseDNPart(s string, sep byte) (part dnPart, rest string, err error) {
	s = strings.TrimLeft(s, " ")
	if t, ok := strings.CutPrefix(s, "*"); ok {
		t = strings.TrimLeft(t, " ")
		if t == "" || t[0] == sep {
			return dnPart{any: true}, t, nil
		}
	}
	for {
		a, rest, err := parseDNAttr(s, sep)
		if err != nil {
			return part, "", err
		}
		if slices.ContainsFunc(part.attrs, func(b dnWritten) bool { return a.kind.oid == b.kind.oid }) {
			return part, "", fmt.Errorf("%s stands twice in one part of it", a.kind.names[0])
		}
		part.attrs = append(part.attrs, a)
		if rest == "" || rest[0] == sep {
			return part, rest, nil
		}
		s = rest[1:] // behind a plus
	}
}

func parseDNAttr(s string, sep byte) (a dnWritten, rest string, err error) {
	end := strings.IndexAny(s, `=+\"`+string(sep))
	if end < 0 || s[end] != '=' {
		what, _, _ := strings.Cut(s, string(sep))
		return a, "", fmt.Errorf(`%q is not TYPE=VALUE; within a value write \, \+ and \/ for such signs`, strings.TrimSpace(what))
	}
	if a.kind, err = dnTypeNamed(strings.TrimSpace(s[:end])); err != nil {
		return a, "", err
	}
	s = strings.TrimLeft(s[end+1:], " ")
	if strings.HasPrefix(s, "#") {
		end := strings.IndexAny(s, "+"+string(sep))
		if end < 0 {
			end = len(s)
		}
		a.der, err = hex.DecodeString(strings.TrimSpace(s[1:end]))
		var v asn1.RawValue
		if left, bad := asn1.Unmarshal(a.der, &v); err != nil || bad != nil || len(left) > 0 {
			return a, "", fmt.Errorf("after %s=# there is no DER in hexadecimal (RFC 4514 section 2.4)", a.kind.names[0])
		}
		return a, s[end:], nil
	}
	if a.value, rest, err = parseDNValue(s, sep); err == nil && len(a.value) == 1 && a.value[0] == "" {
		err = fmt.Errorf("%s has no value", a.kind.names[0])
	}
	return a, rest, err
}

// parseDNValue reads a value, with the escapes of RFC 4514 section 2.4, or
// between quotation marks, as openssl and Windows write one with a comma.
func parseDNValue(s string, sep byte) (value []string, rest string, err error) {
	var b []byte
	quoted := strings.HasPrefix(s, `"`)
	i, solid := btoi(quoted), 0 // solid: up to where a space is not at the end
	for ; ; i++ {
		switch {
		case i == len(s) && quoted:
			return nil, "", fmt.Errorf("a quotation mark is not closed")
		case i == len(s), !quoted && (s[i] == sep || s[i] == '+' && startsDNAttr(s[i+1:], sep)):
			value = append(value, string(b[:max(solid, len(strings.TrimRight(string(b), " ")))]))
			for _, v := range value {
				if !utf8.ValidString(v) {
					return nil, "", fmt.Errorf("a value is not UTF-8")
				}
			}
			return value, s[i:], nil
		case quoted && s[i] == '"':
			rest = strings.TrimLeft(s[i+1:], " ")
			if rest != "" && rest[0] != sep && rest[0] != '+' {
				return nil, "", fmt.Errorf("something follows a closing quotation mark")
			}
			return append(value, string(b)), rest, nil
		case s[i] == '*':
			value, b, solid = append(value, string(b)), nil, 0
		case s[i] == '\\' && i+1 == len(s):
			return nil, "", fmt.Errorf("it ends with a backslash")
		case s[i] == '\\':
			i++
			if n, err := strconv.ParseUint(s[i:min(i+2, len(s))], 16, 8); err == nil && i+2 <= len(s) {
				b, i = append(b, byte(n)), i+1
			} else {
				b = append(b, s[i])
			}
			solid = len(b)
		default:
			b = append(b, s[i])
		}
	}
}

// startsDNAttr says that another attribute follows a plus, and that it is not
// one of a value.
func startsDNAttr(s string, sep byte) bool {
	end := strings.IndexAny(s, `=+\"`+string(sep))
	if end < 0 || s[end] != '=' {
		return false
	}
	_, err := dnTypeNamed(strings.TrimSpace(s[:end]))
	return err == nil
}

// dnTypeNamed finds a type by its name, or by its OID, with or without "OID."
// before it.
func dnTypeNamed(name string) (*dnType, error) {
	low := strings.ToLower(name)
	low = strings.TrimPrefix(low, "oid.")
	if t := dnByName[low]; t != nil {
		return t, nil
	}
	switch low {
	case "sn":
		return nil, errors.New("the type SN is the surname to openssl, and the serial number to strongSwan: write surname or serialNumber")
	case "s":
		return nil, errors.New("the type S is the state to Windows, and the surname to strongSwan: write ST or surname")
	}
	var oid asn1.ObjectIdentifier
	for _, arc := range strings.Split(low, ".") {
		n, err := strconv.ParseUint(arc, 10, 31)
		if err != nil {
			return nil, fmt.Errorf("%q is not a type of attribute that ipfw knows (C, DC, ST, L, STREET, O, OU, CN, serialNumber, UID, E, surname, GN, title and others of RFC 4519, or an OID in digits)", name)
		}
		oid = append(oid, int(n))
	}
	if _, err := asn1.Marshal(oid); err != nil {
		return nil, fmt.Errorf("%s is no OID", name)
	}
	return &dnType{oid: oid.String(), rank: -1, names: []string{oid.String()}}, nil
}

// der is the name, if it is one and not a pattern.
func (p dnPattern) der() ([]byte, error) {
	var list []derRDNSET
	for _, part := range p.parts {
		var set derRDNSET
		for _, a := range part.attrs {
			x := derAttr{Value: asn1.RawValue{FullBytes: a.der}}
			if a.der == nil {
				x.Value = asn1.RawValue{Tag: a.kind.tagFor(a.value[0]), Bytes: []byte(a.value[0])}
			}
			for _, arc := range strings.Split(a.kind.oid, ".") {
				n, _ := strconv.Atoi(arc)
				x.Type = append(x.Type, n)
			}
			set = append(set, x)
		}
		list = append(list, set)
	}
	if !p.root {
		slices.Reverse(list)
	}
	return asn1.Marshal(list)
}

// tagFor is the string type for a value: what RFC 5280 wants for the attribute,
// unless the value does not fit.
func (t *dnType) tagFor(v string) int {
	printable := !strings.ContainsFunc(v, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(" '()+,-./:=?", r))
	})
	ascii := !strings.ContainsFunc(v, func(r rune) bool { return r >= utf8.RuneSelf })
	switch {
	case t.tag == tagIA5 && ascii:
		return tagIA5
	case printable && t.tag != tagIA5:
		return tagPrintable
	}
	return tagUTF8
}

// fits says that a name fits the pattern: see parseDNPattern for the order.
func (p dnPattern) fits(n dname) bool {
	want := p.canonical()
	if !p.root { // a star that runs over parts goes on in the order as written
		n = n.reversed()
	}
	return globParts(want, n.canonical()) || p.both && globParts(want, n.reversed().canonical())
}

// canonical is what dname.canonical gives, cut at the stars.
func (p dnPattern) canonical() []string {
	out := []string{""}
	add := func(s string) { out[len(out)-1] += s }
	for _, part := range p.parts {
		if part.any {
			out = append(out, "")
			continue
		}
		var list [][]string
		for _, a := range part.attrs {
			list = append(list, a.canonical())
		}
		slices.SortFunc(list, slices.Compare)
		for i, pieces := range list {
			if i > 0 {
				add(markPlus)
			}
			add(pieces[0])
			out = append(out, pieces[1:]...)
		}
		add(markEnd)
	}
	return out
}

func (a dnWritten) canonical() []string {
	head := markType + a.kind.oid + markValue
	if a.der != nil {
		var v asn1.RawValue
		_, _ = asn1.Unmarshal(a.der, &v) // it was read before
		t, ok := stringIn(&v)
		if ok {
			t, ok = prepare(t)
		}
		if !ok {
			t = markDER + hex.EncodeToString(a.der)
		}
		return []string{head + t}
	}
	out := slices.Clone(a.value)
	for i, v := range out {
		s, ok := fold(v)
		if !ok { // as it stands in dname.canonical, if there is no star beside it
			x, _ := asn1.Marshal(asn1.RawValue{Tag: a.kind.tagFor(v), Bytes: []byte(v)})
			out[i] = markDER + hex.EncodeToString(x)
			continue
		}
		begins, ends := strings.HasPrefix(s, " ") && i > 0, strings.HasSuffix(s, " ") && i < len(out)-1
		s = strings.Join(strings.FieldsFunc(s, isSpace), " ")
		if begins {
			s = " " + s
		}
		if ends && s != " " {
			s += " "
		}
		out[i] = s
	}
	out[0] = head + out[0]
	return out
}
