package packet

import (
	"errors"
	"fmt"
)

// Fragment cuts a whole datagram into fragments of at most mtu bytes each
// (RFC 791 section 3.2, RFC 8200 section 4.5). id is the identification of all
// of them. A datagram that fits comes back as it is. It does not look at DF:
// whether a packet may be cut is the caller's to know.
func Fragment(b []byte, mtu int, id uint32) ([][]byte, error) {
	var p Packet
	if f := p.network(b, len(b), false); f != OK {
		return nil, fmt.Errorf("packet: cannot fragment a bad packet: %v", f)
	}
	if p.Fragment || len(b) < p.Len {
		return nil, errors.New("packet: can fragment whole datagrams only")
	}
	b = p.Bytes
	if len(b) <= mtu {
		return [][]byte{b}, nil
	}
	cut := fragment4
	if p.Version == 6 {
		cut = fragment6
	}
	first, later, data := cut(b, &p)
	if first == nil {
		return nil, errors.New("packet: cannot fragment an atomic fragment")
	}
	var out [][]byte
	for offset, header := 0, first; offset < len(data); header = later {
		n := len(data) - offset
		if room := mtu - len(header); n > room {
			n = room &^ 7
		}
		if n <= 0 {
			return nil, fmt.Errorf("packet: an MTU of %d bytes leaves no room for data after %d bytes of headers", mtu, len(header))
		}
		f := append(append(make([]byte, 0, len(header)+n), header...), data[offset:offset+n]...)
		more := offset+n < len(data)
		if p.Version == 6 {
			be.PutUint16(f[4:], uint16(len(f)-ipv6Header))
			h := f[len(header)-fragmentHeader:]
			be.PutUint16(h[2:], uint16(offset)|bit(more, 1))
			be.PutUint32(h[4:], id)
		} else {
			be.PutUint16(f[2:], uint16(len(f)))
			be.PutUint16(f[4:], uint16(id))
			be.PutUint16(f[6:], uint16(offset/8)|bit(more, 0x2000))
			be.PutUint16(f[10:], 0)
			be.PutUint16(f[10:], Checksum(f[:len(header)], 0))
		}
		out = append(out, f)
		offset += n
	}
	return out, nil
}

func bit(set bool, b uint16) uint16 {
	if set {
		return b
	}
	return 0
}

// fragment4 gives the header of the first fragment, that of the later ones,
// which carries only the options that have the copied flag, and the data.
func fragment4(b []byte, p *Packet) (first, later, data []byte) {
	first, data = b[:p.Transport], b[p.Transport:]
	later = append(later, b[:ipv4Header]...)
	for o := first[ipv4Header:]; len(o) > 0 && o[0] != 0; {
		n := 1
		if o[0] != 1 { // all but No Operation have a length
			n = int(o[1])
		}
		if o[0]&0x80 != 0 {
			later = append(later, o[:n]...)
		}
		o = o[n:]
	}
	later = pad(later, 0, 4)
	later[0] = 4<<4 | uint8(len(later)/4)
	return first, later, data
}

// fragment6 gives the per-fragment headers with a Fragment header at their
// end, the same for all fragments, and the data: what follows the last
// Hop-by-Hop or Routing header. No headers, if there is a Fragment header
// already.
func fragment6(b []byte, p *Packet) (first, later, data []byte) {
	next, end := 6, ipv6Header // where the last per-fragment Next Header stands, and where the data begin
	for off, proto := ipv6Header, b[6]; off < p.Transport; {
		if proto == FragmentHdr {
			return nil, nil, b
		}
		size := (int(b[off+1]) + 1) * 8
		if proto == HopByHop || proto == Routing {
			next, end = off, off+size
		}
		proto, off = b[off], off+size
	}
	first = append(first, b[:end]...)
	first = append(first, b[next], 0, 0, 0, 0, 0, 0, 0)
	first[next] = FragmentHdr
	return first, first, b[end:]
}

// Piece splits a fragment that Parse has accepted into its headers, the Fragment
// header of IPv6 included, and its data.
func (p *Packet) Piece() (head, data []byte) {
	end := p.Transport
	if p.Version == 6 { // what follows the Fragment header is data, headers or not
		_, at := p.fragmentHeader()
		end = at + fragmentHeader
	}
	return p.Bytes[:end], p.Bytes[end:]
}

// fragmentHeader finds the Fragment header: where the Next Header field stands
// that names it, and where it begins.
func (p *Packet) fragmentHeader() (next, at int) {
	next, at = 6, ipv6Header
	for p.Bytes[next] != FragmentHdr {
		next, at = at, at+(int(p.Bytes[at+1])+1)*8
	}
	return next, at
}

// AppendWhole appends to dst the header of the datagram that was cut into
// fragments, of which the first has the headers head (see Piece): n bytes of data
// are to follow. It does not say that the datagram may not be cut again, as it is
// longer than its sender thought would pass. tos is that of all fragments
// together.
func AppendWhole(dst, head []byte, n int, tos uint8) ([]byte, error) {
	var p Packet
	if len(head) == 0 || head[0]>>4 == 4 {
		if len(head) < ipv4Header || len(head)+n > 65535 {
			return dst, errors.New("packet: no IPv4 header, or more data than it can state")
		}
		dst = append(dst, head...)
		h := dst[len(dst)-len(head):]
		h[1] = tos
		be.PutUint16(h[2:], uint16(len(head)+n))
		be.PutUint16(h[6:], 0)
		be.PutUint16(h[10:], 0)
		be.PutUint16(h[10:], Checksum(h, 0))
		return dst, nil
	}
	p.Bytes = head
	next, at := p.fragmentHeader()
	if at-ipv6Header+n > 65535 {
		return dst, errors.New("packet: more data than an IPv6 header can state")
	}
	dst = append(dst, head[:at]...)
	h := dst[len(dst)-at:]
	h[0], h[1] = h[0]&0xf0|tos>>4, tos<<4|h[1]&0x0f
	be.PutUint16(h[4:], uint16(at-ipv6Header+n))
	h[next] = head[at]
	return dst, nil
}
