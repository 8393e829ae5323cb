package ike

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/ipfw/ipfw/packet"
)

// ID types, RFC 7296 section 3.5.
const (
	idIPv4   = 1
	idFQDN   = 2
	idRFC822 = 3
	idIPv6   = 5
	idDN     = 9
	idKeyID  = 11
)

// maxIDData is the longest identity taken, in bytes.
const maxIDData = 1024

// Identity is an identification payload's content. The zero value is no
// identity.
type Identity struct {
	Type uint8
	Data string // raw bytes
}

// ParseIdentity reads an identity as policies write it: an address, an e-mail
// address, a distinguished name ("CN=gw,O=Example" or "O=Example, CN=gw", see
// parseDNPattern), "key-id:" and bytes, or else a domain name.
func ParseIdentity(s string) (Identity, error) {
	switch {
	case s == "":
		return Identity{}, fmt.Errorf("an identity cannot be empty")
	case strings.HasPrefix(s, "key-id:"):
		return Identity{idKeyID, s[len("key-id:"):]}, nil
	case strings.Contains(s, "="):
		p, err := parseDNPattern(s)
		if err != nil {
			return Identity{}, err
		}
		if p.star {
			return Identity{}, fmt.Errorf("%q has a star in it, which stands for many names; as a part of one it is written \\*", s)
		}
		der, err := p.der()
		return Identity{idDN, string(der)}, err
	case strings.Contains(s, "@"):
		return Identity{idRFC822, s}, nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return addrIdentity(a), nil
	}
	return Identity{idFQDN, s}, nil
}

func addrIdentity(a netip.Addr) Identity {
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return Identity{idIPv4, string(a.AsSlice())}
	}
	return Identity{idIPv6, string(a.AsSlice())}
}

// IsZero says that there is no identity.
func (id Identity) IsZero() bool { return id == Identity{} }

// String gives the form that ParseIdentity reads. Bytes that do not print are
// escaped, because a peer chose them.
func (id Identity) String() string {
	switch id.Type {
	case 0:
		return "none"
	case idIPv4, idIPv6:
		if a, ok := netip.AddrFromSlice([]byte(id.Data)); ok {
			return a.String()
		}
	case idFQDN, idRFC822:
		if q := fmt.Sprintf("%q", id.Data); q == `"`+id.Data+`"` {
			return id.Data
		}
	case idDN:
		if n, err := readDN([]byte(id.Data)); err == nil {
			return packet.Printable(n.String())
		}
	case idKeyID:
		return "key-id:" + strings.Trim(fmt.Sprintf("%q", id.Data), `"`)
	}
	return fmt.Sprintf("type %d 0x%s", id.Type, hex.EncodeToString([]byte(id.Data)))
}

// body is the content of an ID payload; it is what the AUTH payload covers.
func (id Identity) body() []byte { return append([]byte{id.Type, 0, 0, 0}, id.Data...) }

func parseID(b []byte) (Identity, error) {
	if len(b) < 5 || len(b) > 4+maxIDData {
		return Identity{}, syntaxError("ID payload of %d bytes, 5 to 1028 allowed", len(b))
	}
	id := Identity{b[0], string(b[4:])}
	n := map[uint8]int{idIPv4: 4, idIPv6: 16}[id.Type]
	if n != 0 && len(id.Data) != n {
		return Identity{}, syntaxError("ID of type %d with %d bytes, not %d", id.Type, len(id.Data), n)
	}
	return id, nil
}

// matches says that an identity fits a pattern of the policy, in which "*" is
// any run of characters: "" fits any identity, "*.example.org" every name below
// a domain, "*@example.org" every user; without a star it fits exactly. A
// pattern fits identities of its own kind only.
func (id Identity) matches(pattern string) bool {
	if id.Data == "" { // nobody; parseID gives none such
		return false
	}
	if pattern == "" || pattern == "*" {
		return true
	}
	kind := patternKind(pattern)
	if kind == idDN {
		if id.Type != idDN {
			return false
		}
		p, err := parseDNPattern(pattern)
		n, err2 := readDN([]byte(id.Data))
		return err == nil && err2 == nil && p.fits(n)
	}
	if !strings.Contains(pattern, "*") {
		want, err := ParseIdentity(pattern)
		return err == nil && id.same(want)
	}
	if id.Type != kind {
		return false
	}
	switch kind {
	case idFQDN:
		return glob(strings.ToLower(pattern), strings.ToLower(id.Data))
	case idRFC822:
		user, host, ok := cutLast(id.Data, "@")
		pu, ph, _ := cutLast(pattern, "@")
		return ok && glob(pu, user) && glob(strings.ToLower(ph), strings.ToLower(host))
	case idKeyID:
		return glob(strings.TrimPrefix(pattern, "key-id:"), id.Data)
	}
	return false
}

// CheckPattern says why nobody can fit a pattern of the policy, as remote_id is
// one; nil: somebody can.
func CheckPattern(s string) error {
	star := strings.Contains(s, "*")
	switch kind := patternKind(s); {
	case s == "":
		return nil
	case kind == idDN:
		_, err := parseDNPattern(s)
		return err
	case kind != idFQDN || s == "*":
		return nil
	case star && strings.Trim(s, "0123456789.*") == "", star && strings.Contains(s, ":"):
		return fmt.Errorf("%q is no pattern of addresses: there a star does not count; say in remote_endpoint where the peers may be", s)
	}
	if _, err := netip.ParsePrefix(s); err == nil {
		return fmt.Errorf("%q is no identity but a range of addresses: say in remote_endpoint where the peers may be", s)
	}
	return nil
}

// CheckIdentity says why a host cannot call itself so, as local_id has it.
func CheckIdentity(s string) error {
	id, err := ParseIdentity(s)
	if err == nil && strings.Contains(s, "*") && id.Type != idKeyID && id.Type != idDN {
		return fmt.Errorf("%q is a pattern, and this host has one name", s)
	}
	if err == nil && len(id.Data) > maxIDData {
		return fmt.Errorf("an identity of %d bytes is too long, peers take %d", len(id.Data), maxIDData)
	}
	return err
}

// patternKind is the kind of identity that a pattern is for.
func patternKind(pattern string) uint8 {
	switch {
	case strings.HasPrefix(pattern, "key-id:"):
		return idKeyID
	case strings.Contains(pattern, "="):
		return idDN
	case strings.Contains(pattern, "@"):
		return idRFC822
	}
	return idFQDN
}

// glob matches s with a pattern in which "*" is any run of characters.
func glob(pattern, s string) bool {
	return globParts(strings.Split(pattern, "*"), s)
}

// globParts is glob for a pattern that is cut at its stars.
func globParts(parts []string, s string) bool {
	if len(parts) == 1 {
		return parts[0] == s
	}
	first, last := parts[0], parts[len(parts)-1]
	if len(s) < len(first)+len(last) || !strings.HasPrefix(s, first) || !strings.HasSuffix(s, last) {
		return false
	}
	s = s[len(first) : len(s)-len(last)]
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(s, p)
		if i < 0 {
			return false
		}
		s = s[i+len(p):]
	}
	return true
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// same compares two identities, names of domains without regard to case and
// distinguished names as RFC 5280 section 7.1 has it (see canonical).
func (id Identity) same(o Identity) bool {
	if id.Type != o.Type {
		return false
	}
	switch id.Type {
	case idFQDN:
		return strings.EqualFold(id.Data, o.Data)
	case idDN:
		a, err := readDN([]byte(id.Data))
		b, err2 := readDN([]byte(o.Data))
		if err != nil || err2 != nil {
			return id.Data == o.Data
		}
		return a.canonical() == b.canonical()
	}
	return id.Data == o.Data
}

// turned is a distinguished name with its parts the other way round; other
// identities have no parts.
func (id Identity) turned() Identity {
	var list []asn1.RawValue
	if id.Type != idDN {
		return id
	}
	if rest, err := asn1.Unmarshal([]byte(id.Data), &list); err != nil || len(rest) > 0 {
		return id
	}
	slices.Reverse(list)
	der, _ := asn1.Marshal(list)
	return Identity{idDN, string(der)}
}

// inCertificate says that a certificate speaks for the identity (RFC 7296
// section 3.5 and RFC 4945 section 3.1).
func (id Identity) inCertificate(c *x509.Certificate) bool {
	switch id.Type {
	case idFQDN:
		for _, n := range c.DNSNames {
			if strings.EqualFold(n, id.Data) {
				return true
			}
		}
	case idRFC822:
		for _, n := range c.EmailAddresses {
			if n == id.Data {
				return true
			}
		}
	case idIPv4, idIPv6:
		for _, n := range c.IPAddresses {
			if n.Equal(net.IP(id.Data)) {
				return true
			}
		}
	case idDN:
		// By value: a peer that is asked for its name in our encoding answers
		// in ours. That the certificate is of the peer, its signature proves.
		return id.same(Identity{idDN, string(c.RawSubject)})
	}
	return false
}

// isName says that an identity is of a kind that names somebody, and that a
// certificate can have. Callers with EAP often have an address here.
func (id Identity) isName() bool { return id.Type == idFQDN || id.Type == idRFC822 || id.Type == idDN }

// namesIn gives the identities that a certificate speaks for.
func namesIn(c *x509.Certificate) (out []Identity) {
	for _, n := range c.EmailAddresses {
		out = append(out, Identity{idRFC822, n})
	}
	for _, n := range c.DNSNames {
		out = append(out, Identity{idFQDN, n})
	}
	for _, a := range c.IPAddresses {
		if a, ok := netip.AddrFromSlice(a); ok {
			out = append(out, addrIdentity(a))
		}
	}
	return append(out, Identity{idDN, string(c.RawSubject)})
}

// identitiesOf lists what a certificate speaks for, for events.
func identitiesOf(c *x509.Certificate) string {
	names := append(append([]string(nil), c.DNSNames...), c.EmailAddresses...)
	for _, a := range c.IPAddresses {
		names = append(names, a.String())
	}
	return packet.Printable(strings.Join(append(names, Identity{idDN, string(c.RawSubject)}.String()), ", "))
}
