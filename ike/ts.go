package ike

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// TrafficSelector is one selector of a TS payload, RFC 7296 section 3.13.1:
// a range of addresses, an upper-layer protocol and a range of ports. For
// ICMP the ports hold type<<8 | code.
type TrafficSelector struct {
	First, Last         netip.Addr // both included, one family
	Protocol            uint8      // 0: any
	FirstPort, LastPort uint16     // 0 and 65535: any; 65535 and 0: OPAQUE
}

const (
	tsIPv4 = 7
	tsIPv6 = 8

	// MaxSelectors is how many selectors one TS payload can have: their number
	// is one octet (RFC 7296 section 3.13).
	MaxSelectors = 255
)

// SelectorOf is the selector for all protocols and ports of a prefix.
func SelectorOf(p netip.Prefix) TrafficSelector {
	return TrafficSelector{First: p.Masked().Addr(), Last: lastOf(p), LastPort: 0xffff}
}

// selectorOfHost is the selector for all traffic of one address.
func selectorOfHost(a netip.Addr) TrafficSelector {
	return TrafficSelector{First: a, Last: a, LastPort: 0xffff}
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Opaque says that the selector is for packets whose ports cannot be seen, as
// those of fragments without the upper-layer header (RFC 4301 section 4.4.1.1).
func (t TrafficSelector) Opaque() bool { return t.FirstPort == 0xffff && t.LastPort == 0 }

// AnyPort says that the selector is for all ports, and for packets without.
func (t TrafficSelector) AnyPort() bool { return t.FirstPort == 0 && t.LastPort == 0xffff }

// valid says that the selector can be encoded and means something.
func (t TrafficSelector) valid() bool {
	return t.First.IsValid() && t.First.BitLen() == t.Last.BitLen() && !t.First.Is4In6() && !t.Last.Is4In6() &&
		t.First.Zone() == "" && t.First.Compare(t.Last) <= 0 && (t.FirstPort <= t.LastPort || t.Opaque())
}

// isHost says that the selector speaks of one address.
func (t TrafficSelector) isHost() bool { return t.First == t.Last }

func tsPayload(kind uint8, list []TrafficSelector) payload {
	b := []byte{byte(len(list)), 0, 0, 0}
	for _, t := range list {
		typ, n := byte(tsIPv4), uint16(16)
		if t.First.Is6() {
			typ, n = tsIPv6, 40
		}
		b = append(b, typ, t.Protocol)
		b = binary.BigEndian.AppendUint16(b, n)
		b = binary.BigEndian.AppendUint16(b, t.FirstPort)
		b = binary.BigEndian.AppendUint16(b, t.LastPort)
		b = append(b, t.First.AsSlice()...)
		b = append(b, t.Last.AsSlice()...)
	}
	return payload{kind: kind, body: b}
}

// parseTS gives the selectors that mean something to us; of a payload that holds
// others alone, none. What is well-formed is no error, however odd: INVALID_SYNTAX
// ends an IKE SA with all of its children.
func parseTS(b []byte) (list []TrafficSelector, err error) {
	if len(b) < 4 {
		return nil, syntaxError("TS payload of %d bytes, at least 4 needed", len(b))
	}
	count := int(b[0])
	if count == 0 {
		return nil, syntaxError("TS payload without selectors")
	}
	for b = b[4:]; len(b) > 0; {
		if len(b) < 8 {
			return nil, syntaxError("%d bytes left, a selector needs 8", len(b))
		}
		n := int(binary.BigEndian.Uint16(b[2:]))
		if n < 8 || n > len(b) {
			return nil, syntaxError("selector says %d bytes, %d are left", n, len(b))
		}
		size := map[byte]int{tsIPv4: 4, tsIPv6: 16}[b[0]]
		if size != 0 { // a type we do not know is passed over
			if n != 8+2*size {
				return nil, syntaxError("selector of type %d has %d bytes, not %d", b[0], n, 8+2*size)
			}
			t := TrafficSelector{Protocol: b[1], FirstPort: binary.BigEndian.Uint16(b[4:]), LastPort: binary.BigEndian.Uint16(b[6:])}
			t.First, _ = netip.AddrFromSlice(b[8 : 8+size])
			t.Last, _ = netip.AddrFromSlice(b[8+size : n])
			if t.valid() {
				list = append(list, t)
			}
		}
		b = b[n:]
		count--
	}
	if count != 0 {
		return nil, syntaxError("TS payload announces %d more selectors than it has", count)
	}
	return list, nil
}

func parseTSPair(list []payload) (tsi, tsr []TrafficSelector, err error) {
	i, ok := find(list, plTSi)
	r, ok2 := find(list, plTSr)
	if !ok || !ok2 {
		return nil, nil, syntaxError("a child without traffic selectors")
	}
	if tsi, err = parseTS(i.body); err == nil {
		tsr, err = parseTS(r.body)
	}
	return tsi, tsr, err
}

// intersect gives what two selectors have in common.
func intersect(a, b TrafficSelector) (TrafficSelector, bool) {
	if a.First.BitLen() != b.First.BitLen() {
		return TrafficSelector{}, false
	}
	t := a
	switch {
	case a.Protocol == 0:
		t.Protocol = b.Protocol
	case b.Protocol != 0 && b.Protocol != a.Protocol:
		return t, false
	}
	if b.First.Compare(t.First) > 0 {
		t.First = b.First
	}
	if b.Last.Compare(t.Last) < 0 {
		t.Last = b.Last
	}
	switch { // ANY includes OPAQUE, other ports do not (RFC 4301 section 4.4.1.1)
	case a.AnyPort():
		t.FirstPort, t.LastPort = b.FirstPort, b.LastPort
	case b.AnyPort(), a.Opaque() && b.Opaque():
	case a.Opaque() != b.Opaque():
		return t, false
	default:
		t.FirstPort, t.LastPort = max(a.FirstPort, b.FirstPort), min(a.LastPort, b.LastPort)
	}
	return t, t.First.Compare(t.Last) <= 0 && (t.FirstPort <= t.LastPort || t.Opaque())
}

// contains says that everything b matches is matched by a as well.
func contains(a, b TrafficSelector) bool {
	t, ok := intersect(a, b)
	return ok && t == b
}

// narrow gives the part of an offer that we allow (RFC 7296 section 2.9), in
// the order of the offer, without entries that another one contains, and no more
// of it than a payload holds. It is empty when there is nothing in common.
func narrow(offer, allow []TrafficSelector) []TrafficSelector {
	var out []TrafficSelector
	for _, o := range offer {
		for _, a := range allow {
			t, ok := intersect(o, a)
			if !ok || slices.ContainsFunc(out, func(u TrafficSelector) bool { return contains(u, t) }) {
				continue
			}
			out = slices.DeleteFunc(out, func(u TrafficSelector) bool { return contains(t, u) })
			if out = append(out, t); len(out) == MaxSelectors {
				return out
			}
		}
	}
	return out
}

// subset says that an answer stays inside what was offered: every selector of
// the answer lies in one of the offer.
func subset(answer, offer []TrafficSelector) bool {
	for _, t := range answer {
		if !slices.ContainsFunc(offer, func(o TrafficSelector) bool { return contains(o, t) }) {
			return false
		}
	}
	return len(answer) > 0
}

// Distinct leaves out selectors that others of the list contain.
func Distinct(list []TrafficSelector) []TrafficSelector {
	var out []TrafficSelector
	for _, t := range list {
		if slices.ContainsFunc(out, func(u TrafficSelector) bool { return contains(u, t) }) {
			continue
		}
		out = append(slices.DeleteFunc(out, func(u TrafficSelector) bool { return contains(t, u) }), t)
	}
	return out
}

// throughNAT is RFC 7296 section 2.23.1: in transport mode each side writes the
// addresses that it sees. Beyond a NAT these are others; ours are those of the
// IKE SA. Both sides replace what they receive before they look at it.
func throughNAT(ts []TrafficSelector, seen netip.Addr) []TrafficSelector {
	out := slices.Clone(ts)
	for i, t := range out {
		if t.isHost() && t.First.BitLen() == seen.BitLen() {
			out[i].First, out[i].Last = seen, seen
		}
	}
	return out
}

// dynamicEnd reads the selectors of a caller that has an address of ours: where
// they say 0.0.0.0 or ::, any address may stand. OpenIKED writes so where its
// own is to be, which it does not know as it calls.
func dynamicEnd(ts []TrafficSelector) []TrafficSelector {
	out := slices.Clone(ts)
	for i, t := range out {
		if t.isHost() && t.First.IsUnspecified() {
			out[i].Last = lastOf(netip.PrefixFrom(t.First, 0))
		}
	}
	return out
}
