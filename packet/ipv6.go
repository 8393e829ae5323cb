package packet

import (
	"net/netip"
)

// Sizes of fixed headers in bytes.
const (
	ipv4Header     = 20
	ipv6Header     = 40
	fragmentHeader = 8
)

// Bounds on the IPv6 extension header chain. RFC 8200 section 4.1 knows no
// use for more than seven headers; a chain has to fit in the smallest MTU that
// every link has (RFC 7112 section 5, RFC 8200 section 5).
const (
	maxExtensions = 8
	maxChain      = 1280
)

// extensions has a bit for each protocol number that ipv6Chain walks over.
// AH and ESP are not among them: policy decides before they are opened.
// Mobility ends the chain, see mobility.
const extensions uint64 = 1<<HopByHop | 1<<Routing | 1<<FragmentHdr | 1<<DestOptions

func isExtension(proto uint8) bool { return proto < 64 && extensions>>proto&1 != 0 }

// ipv6 reads an IPv6 header. RFC 8200, section 3:
//
//	|Version| Traffic Class |           Flow Label                  |
//	|         Payload Length        |  Next Header  |   Hop Limit   |
//	|                 Source Address (16 bytes)                     |
//	|               Destination Address (16 bytes)                  |
func (p *Packet) ipv6(b []byte, wireLen int, unstated bool) Fault {
	if len(b) < ipv6Header {
		return Truncated
	}
	p.Version = 6
	p.DontFragment = true
	p.TOS = uint8(be.Uint16(b) >> 4)
	p.TTL = b[7]
	p.Protocol = b[6]
	if mapped(b[8:24]) || mapped(b[24:40]) {
		return BadVersion
	}
	p.Src = netip.AddrFrom16([16]byte(b[8:24]))
	p.Dst = netip.AddrFrom16([16]byte(b[24:40]))
	length := int(be.Uint16(b[4:]))
	p.Len = ipv6Header + length
	// Length 0 with options to follow is a jumbogram (RFC 2675 section 2).
	jumbo := length == 0 && p.Protocol == HopByHop
	if unstated && length == 0 && p.Protocol != NoNext {
		p.Len = wireLen
	}
	if p.Len > wireLen || jumbo && !unstated {
		return BadLength
	}
	p.Bytes = b[:min(len(b), p.Len)]
	p.Transport, p.Payload = ipv6Header, ipv6Header
	if isExtension(p.Protocol) {
		return p.ipv6Chain(jumbo)
	}
	return OK
}

// mapped reports an IPv4-mapped IPv6 address. None may be seen on the wire
// (IANA special-purpose address registry, RFC 6890), and one that passed
// could be taken for the IPv4 address.
func mapped(a []byte) bool {
	return be.Uint64(a) == 0 && be.Uint32(a[8:]) == 0x0000ffff
}

// ipv6Chain walks the extension headers from p.Transport on and leaves
// p.Protocol and p.Transport at the upper-layer header. RFC 8200, section 4:
//
//	|  Next Header  |  Hdr Ext Len  |  options or type-specific data
//
// jumbo says that the first may tell the packet's length.
func (p *Packet) ipv6Chain(jumbo bool) Fault {
	b, next, off := p.Bytes, p.Protocol, ipv6Header
	fragmented := false // a Fragment header was seen, atomic or not
	for n := 0; isExtension(next); n++ {
		if n == maxExtensions || next == HopByHop && n != 0 {
			return BadChain
		}
		if off+8 > len(b) {
			return p.short(off + 8)
		}
		size := 8
		if next != FragmentHdr {
			size = (int(b[off+1]) + 1) * 8
		}
		if off+size > maxChain {
			return BadChain
		}
		if off+size > len(b) {
			return p.short(off + size)
		}
		header, f := b[off:off+size], OK
		switch next {
		case HopByHop, DestOptions:
			f = p.ipv6Options(header[2:], next, jumbo)
		case Routing:
			f = p.routing(header)
		case FragmentHdr:
			if fragmented {
				return BadChain
			}
			fragmented = true
			f = p.fragment(header, off+size)
		}
		if f != OK {
			return f
		}
		next = header[0]
		off += size
		p.Protocol, p.Transport, p.Payload = next, off, off
		if p.FragOffset != 0 {
			return OK
		}
	}
	// RFC 6980 section 5: neighbour discovery and secure neighbour
	// discovery never come in fragments, atomic ones included.
	if fragmented && next == ICMPv6 && off < len(b) {
		if t := b[off]; t >= 133 && t <= 137 || t == 148 {
			return BadFragment
		}
	}
	return OK
}

// ipv6Options walks the options of a Hop-by-Hop or Destination Options header
// for their lengths (RFC 8200, section 4.2).
func (p *Packet) ipv6Options(o []byte, header uint8, jumbo bool) Fault {
	const pad1, jumboPayload = 0, 0xc2
	for len(o) > 0 {
		if o[0] == pad1 {
			o = o[1:]
			continue
		}
		if len(o) < 2 || 2+int(o[1]) > len(o) {
			return BadChain
		}
		if o[0] == jumboPayload && header == HopByHop { // RFC 2675 section 2
			if !jumbo || o[1] != 4 {
				return BadLength
			}
			length := int64(be.Uint32(o[2:]))
			if length <= 65535 || length > int64(p.Len-ipv6Header) {
				return BadLength
			}
			p.Len = ipv6Header + int(length)
			p.Bytes = p.Bytes[:min(len(p.Bytes), p.Len)]
		}
		o = o[2+int(o[1]):]
	}
	return OK
}

// routing reads a Routing header (RFC 8200, section 4.4).
//
//	|  Next Header  |  Hdr Ext Len  |  Routing Type | Segments Left |
func (p *Packet) routing(h []byte) Fault {
	kind, left := h[2], h[3]
	if left == 0 {
		return OK
	}
	if kind == 0 { // deprecated for what it did to firewalls: RFC 5095 section 3
		return BadChain
	}
	p.SourceRouted = true
	return OK
}

// fragment reads a Fragment header (RFC 8200, section 4.5), after which the
// data begin at offset data.
//
//	|  Next Header  |   Reserved    |      Fragment Offset    |Res|M|
//	|                         Identification                        |
func (p *Packet) fragment(h []byte, data int) Fault {
	offset := be.Uint16(h[2:])
	p.FragID = be.Uint32(h[4:])
	p.FragOffset = int(offset &^ 7)
	p.MoreFragment = offset&1 != 0
	p.Protocol = h[0]
	if p.FragOffset == 0 && !p.MoreFragment {
		return OK // atomic: a whole datagram (RFC 6946 section 4)
	}
	p.Fragment = true
	if p.FragOffset != 0 && (h[0] == HopByHop || h[0] == FragmentHdr) {
		return BadChain // neither may follow a Fragment header
	}
	return p.checkFragment(data, p.Len-ipv6Header-fragmentHeader)
}
