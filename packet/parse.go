package packet

import (
	"encoding/binary"
	"net/netip"
)

var be = binary.BigEndian

// Parse reads the IP datagram in b into p. wireLen is how long the datagram
// was on the wire; b may be shorter when a capture was cut, but the headers
// must be inside b. Whatever p held before is overwritten. When the answer is
// not OK, p holds what was read up to the fault: good for a log line, not for
// a verdict.
func Parse(p *Packet, b []byte, wireLen int) Fault {
	if f := p.network(b, max(wireLen, len(b)), false); f != OK || p.FragOffset != 0 {
		return f
	}
	return p.transport()
}

// ParseCaptured is Parse for a packet from a capture file, where the length that
// its header states may be 0: what the kernel is to send in segments, and is
// captured before it is cut (segmentation offload), can be longer than a header can
// say. Then wireLen is the length, which must not count the padding of a link. In
// IPv6 a jumbo payload option (RFC 2675 section 2) may say it as well.
func ParseCaptured(p *Packet, b []byte, wireLen int) Fault {
	if f := p.network(b, max(wireLen, len(b)), true); f != OK || p.FragOffset != 0 {
		return f
	}
	return p.transport()
}

// network reads the IP header and what stands between it and the upper-layer
// header. unstated is for packets whose header may state a length of 0, which is
// wireLen then.
func (p *Packet) network(b []byte, wireLen int, unstated bool) Fault {
	*p = Packet{Bytes: b}
	if len(b) == 0 {
		return Truncated
	}
	switch b[0] >> 4 {
	case 4:
		return p.ipv4(b, wireLen, unstated)
	case 6:
		return p.ipv6(b, wireLen, unstated)
	}
	return BadVersion
}

// ipv4 reads an IPv4 header. RFC 791, section 3.1:
//
//	|Version|  IHL  |Type of Service|          Total Length         |
//	|         Identification        |Flags|      Fragment Offset    |
//	|  Time to Live |    Protocol   |         Header Checksum       |
//	|                       Source Address                          |
//	|                    Destination Address                        |
//	|                    Options                    |    Padding    |
func (p *Packet) ipv4(b []byte, wireLen int, unstated bool) Fault {
	if len(b) < ipv4Header {
		return Truncated
	}
	p.Version = 4
	p.TOS = b[1]
	p.TTL = b[8]
	p.Protocol = b[9]
	p.Src = netip.AddrFrom4([4]byte(b[12:16]))
	p.Dst = netip.AddrFrom4([4]byte(b[16:20]))
	header := int(b[0]&0x0f) * 4
	if p.Len = int(be.Uint16(b[2:])); p.Len == 0 && unstated {
		p.Len = wireLen
	}
	if header < ipv4Header {
		return BadHeaderLength
	}
	// Less than wireLen is fine: Ethernet pads short frames.
	if p.Len < header || p.Len > wireLen {
		return BadLength
	}
	if header > len(b) {
		return Truncated
	}
	p.Bytes = b[:min(len(b), p.Len)]
	p.Transport, p.Payload = header, header
	p.FragID = uint32(be.Uint16(b[4:]))
	frag := be.Uint16(b[6:])
	p.DontFragment = frag&0x4000 != 0
	if header > ipv4Header {
		if f := p.ipv4Options(b[ipv4Header:header]); f != OK {
			return f
		}
	}
	if frag&0x3fff == 0 { // neither M nor an offset
		return OK
	}
	p.Fragment = true
	p.MoreFragment = frag&0x2000 != 0
	p.FragOffset = int(frag&0x1fff) * 8
	return p.checkFragment(header, p.Len)
}

// ipv4Options walks the options for their lengths and notes a source route
// (RFC 791, section 3.1).
func (p *Packet) ipv4Options(o []byte) Fault {
	const endOfList, noOperation, loose, strict = 0, 1, 131, 137
	for len(o) > 0 && o[0] != endOfList {
		if o[0] == noOperation {
			o = o[1:]
			continue
		}
		if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
			return BadHeaderLength
		}
		if o[0] == loose || o[0] == strict {
			// Length 3 or more, pointer 4 or more; used up once the
			// pointer is past the list.
			if o[1] < 3 || o[2] < 4 {
				return BadHeaderLength
			}
			p.SourceRouted = p.SourceRouted || o[2] <= o[1]
		}
		o = o[o[1]:]
	}
	return OK
}

// checkFragment holds the rules on fragments that need no more than the IP
// header. The fragment's data begin at offset data in the datagram; whole is
// what the datagram's length field, or payload length field, counts of this
// fragment once it is put together.
func (p *Packet) checkFragment(data, whole int) Fault {
	n := p.Len - data
	switch {
	case n == 0:
		return BadFragment
	case p.MoreFragment && n%8 != 0: // RFC 791 section 3.2, RFC 8200 section 4.5
		return BadFragment
	case p.FragOffset+whole > 65535: // "ping of death"; RFC 8200 section 4.5
		return BadFragment
	case p.FragOffset != 0 && p.FragOffset < fixedHeader(p.Protocol):
		// It would overwrite what the first fragment, which must hold
		// the whole header, was judged by: RFC 1858 section 4, RFC
		// 3128, RFC 5722.
		return BadFragment
	}
	return OK
}

// short is the fault when a header ends at offset end and the captured bytes
// do not reach so far. A first fragment must hold all headers (RFC 1858
// section 3, RFC 7112 section 5), so there it is the fragment that is bad.
func (p *Packet) short(end int) Fault {
	if p.Fragment && end > p.Len {
		return BadFragment
	}
	return Truncated
}
