package packet

import (
	"errors"
	"net/netip"
)

// Segmenter cuts one TCP packet, up to a 64 KiB super-packet whose checksum
// may still be open (generic segmentation offload), into TCP packets that fit
// an MTU and are complete: RFC 9293 section 3.7.1 for the sizes, RFC 3168
// section 6.1.2 for CWR. It does not allocate.
type Segmenter struct {
	src, dst netip.Addr
	head     []byte // IP and TCP headers of the packet
	data     []byte // what is left to send
	ip       int    // length of the IP header
	size     int    // data bytes in each segment but the last
	seq      uint32
	id       uint16
	v6       bool
	first    bool
	flags    uint8
}

// ErrNotSegmentable says that a packet is no whole TCP packet, or that the
// MTU leaves no room for data.
var ErrNotSegmentable = errors.New("packet: not a TCP packet that can be segmented to this size")

// Reset begins with a packet that Parse has accepted. Each segment will have
// at most mtu bytes, IP header included.
func (s *Segmenter) Reset(p *Packet, mtu int) error {
	if p.Protocol != TCP || p.Fragment || len(p.Bytes) < p.Len || mtu <= p.Payload && p.Payload < p.Len {
		return ErrNotSegmentable
	}
	*s = Segmenter{
		src: p.Src, dst: p.Dst,
		head: p.Bytes[:p.Payload], data: p.Bytes[p.Payload:p.Len], ip: p.Transport,
		size: mtu - p.Payload, seq: p.Seq, v6: p.Version == 6, first: true, flags: p.TCPFlags,
	}
	if !s.v6 {
		s.id = be.Uint16(p.Bytes[4:])
	}
	return nil
}

// Count is how many segments are still to come.
func (s *Segmenter) Count() int {
	if len(s.data) == 0 {
		return int(bit(s.first, 1))
	}
	return (len(s.data) + s.size - 1) / s.size
}

// Next appends the next segment to dst. Its second result is false when there
// is none left.
func (s *Segmenter) Next(dst []byte) ([]byte, bool) {
	if len(s.data) == 0 && !s.first {
		return dst, false
	}
	n := min(s.size, len(s.data))
	start := len(dst)
	dst = append(append(dst, s.head...), s.data[:n]...)
	b := dst[start:]
	last := n == len(s.data)
	if s.v6 {
		be.PutUint16(b[4:], uint16(len(b)-ipv6Header))
	} else {
		be.PutUint16(b[2:], uint16(len(b)))
		be.PutUint16(b[4:], s.id)
		be.PutUint16(b[10:], 0)
		be.PutUint16(b[10:], Checksum(b[:s.ip], 0))
	}
	tcp := b[s.ip:]
	be.PutUint32(tcp[4:], s.seq)
	flags := s.flags
	if !last {
		flags &^= FIN | PSH
	}
	if !s.first {
		flags &^= CWR
	}
	tcp[13] = flags
	be.PutUint16(tcp[16:], 0)
	be.PutUint16(tcp[16:], Checksum(tcp, PseudoHeader(s.src, s.dst, TCP, len(tcp))))
	s.data = s.data[n:]
	s.seq += uint32(n)
	s.id++
	s.first = false
	return dst, true
}
