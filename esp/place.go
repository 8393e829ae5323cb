package esp

import "github.com/ipfw/ipfw/packet"

const (
	ipv4Header = 20
	ipv6Header = 40
	udpHeader  = 8
	espHeader  = 8  // SPI and sequence number: RFC 4303, section 2
	ahHeader   = 12 // up to the ICV: RFC 4302, section 2

	maxExtensions = 16 // in front of an IPsec header; more is an attack on whoever walks them
)

// place is where an IPsec header stands in a datagram, or has to go.
//
//	IPv4 | options                                   | here | upper layer
//	IPv6 | hop-by-hop | dest. options | routing      | here | dest. options | upper layer
//
// RFC 4303 section 3.1.1, RFC 4302 section 3.1.1.
type place struct {
	v6    bool
	at    int   // bytes of the datagram in front of it
	field int   // where the byte is that names the protocol at at
	next  uint8 // that protocol
	total int   // bytes of the datagram
}

// measure reads the version and the length of the datagram in b, which may be
// followed by other bytes.
func measure(b []byte) (p place, f Fault) {
	if len(b) < ipv4Header {
		return p, Short
	}
	switch b[0] >> 4 {
	case 4:
		p = place{at: int(b[0]&15) * 4, field: 9, next: b[9], total: int(be.Uint16(b[2:]))}
	case 6:
		if len(b) < ipv6Header {
			return p, Short
		}
		p = place{v6: true, at: ipv6Header, field: 6, next: b[6], total: ipv6Header + int(be.Uint16(b[4:]))}
	default:
		return p, Malformed
	}
	switch {
	case p.at < ipv4Header || p.total < p.at:
		return p, Malformed
	case p.total > len(b):
		return p, Short
	}
	return p, OK
}

// find looks for the place of an IPsec header. To insert one it goes behind
// the last hop-by-hop or routing header, so that destination options meant for
// the final destination are protected; to read one it goes behind all.
func find(b []byte, insert bool) (place, Fault) {
	p, f := measure(b)
	if f != OK {
		return p, f
	}
	if !p.v6 {
		if be.Uint16(b[6:])&0x3fff != 0 { // more fragments, or an offset
			return p, Fragment
		}
		return p, OK
	}
	at, next := p.at, p.next
	for n := 0; ; n++ {
		header := next
		switch header {
		case packet.HopByHop, packet.Routing, packet.DestOptions:
		case packet.FragmentHdr:
			return p, Fragment
		default:
			return p, OK
		}
		if n == maxExtensions || at+8 > p.total {
			return p, Malformed
		}
		field := at
		next = b[at]
		at += (int(b[at+1]) + 1) * 8
		if at > p.total {
			return p, Malformed
		}
		if header != packet.DestOptions || !insert {
			p.at, p.field, p.next = at, field, next
		}
	}
}

// tos is the IPv4 type of service or IPv6 traffic class of the header in b.
func tos(b []byte) uint8 {
	if b[0]>>4 == 4 {
		return b[1]
	}
	return b[0]<<4 | b[1]>>4
}

// resize makes the IP header at the start of b, a whole datagram, say how long
// b is and what follows its headers.
func resize(b []byte, p place, next uint8) {
	b[p.field] = next
	if p.v6 {
		be.PutUint16(b[4:], uint16(len(b)-ipv6Header))
		return
	}
	be.PutUint16(b[2:], uint16(len(b)))
	be.PutUint16(b[10:], 0)
	be.PutUint16(b[10:], packet.Checksum(b[:int(b[0]&15)*4], 0))
}
