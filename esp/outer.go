package esp

import (
	"net/netip"

	"github.com/ipfw/ipfw/packet"
)

// outer is what goes in front of an SA's IPsec header: addresses, ports, and
// the headers of tunnel mode, ready but for what each packet changes.
type outer struct {
	Shape
	src, dst netip.Addr
	encap    Encap
	header   [40]byte // the IP header of tunnel mode
}

func newOuter(src, dst netip.Addr, e Encap, c *Config) *outer {
	o := &outer{Shape: newShape(c, dst, e), src: src, dst: dst, encap: e}
	proto := uint8(c.Suite.Protocol)
	if o.udp != 0 {
		proto = packet.UDP
	}
	if !src.IsValid() || !dst.IsValid() {
		return o // an inbound SA that takes packets for any address: makes no header
	}
	ttl := c.Outer.TTL
	if ttl == 0 {
		ttl = 64
	}
	h := &o.header
	if o.v6 {
		h[0], h[6], h[7] = 6<<4, proto, ttl
		s, d := src.As16(), dst.As16()
		copy(h[8:], s[:])
		copy(h[24:], d[:])
		return o
	}
	h[0], h[8], h[9] = 4<<4|5, ttl, proto
	s, d := src.As4(), dst.As4()
	copy(h[12:], s[:])
	copy(h[16:], d[:])
	return o
}

// put writes the outer IP header at the start of b, a whole datagram that
// carries inner (RFC 4301 section 5.1.2).
func (o *outer) put(b, inner []byte, how *Outer, seq uint64) {
	copy(b, o.header[:o.ip])
	class := tos(inner)
	if how.SetDSCP {
		class = how.DSCP<<2 | class&3
	}
	if how.NoECN {
		class &^= 3
	}
	innerV6 := inner[0]>>4 == 6
	if o.v6 {
		b[0] |= class >> 4
		b[1] = class << 4
		if how.CopyFlowLabel && innerV6 {
			b[1] |= inner[1] & 0x0f
			b[2], b[3] = inner[2], inner[3]
		}
		be.PutUint16(b[4:], uint16(len(b)-ipv6Header))
		return
	}
	b[1] = class
	be.PutUint16(b[2:], uint16(len(b)))
	// The identification must not repeat while fragments may be about
	// (RFC 6864); the sequence number is as good as any.
	be.PutUint16(b[4:], uint16(seq))
	if how.DF == SetDF || how.DF == CopyDF && (innerV6 || inner[6]&0x40 != 0) {
		b[6] = 0x40
	}
	be.PutUint16(b[10:], packet.Checksum(b[:ipv4Header], 0))
}

// putUDP writes the UDP header in front of ESP; b is the whole UDP datagram.
// In IPv4 there is no checksum (RFC 3948 section 2.1). IPv6 asks for one (RFC
// 8200 section 8.1): it comes last, by sumUDP.
func (o *outer) putUDP(b []byte) {
	be.PutUint16(b, o.encap.SrcPort)
	be.PutUint16(b[2:], o.encap.DstPort)
	be.PutUint16(b[4:], uint16(len(b)))
	be.PutUint16(b[6:], 0)
}

// sumUDP fills in the checksum of a UDP datagram between the addresses of ip,
// an IPv6 header.
func sumUDP(ip, b []byte) {
	// Source and destination stand side by side in the header, and a sum
	// does not mind: RFC 8200 section 8.1.
	sum := ^packet.Checksum(ip[8:40], packet.UDP+uint32(len(b)))
	sum = packet.Checksum(b, uint32(sum))
	if sum == 0 {
		sum = 0xffff
	}
	be.PutUint16(b[6:], sum)
}

// mergeECN gives the inner packet the congestion mark that the outer header
// picked up on its way: RFC 6040, figure 4. Where the mark cannot be passed on,
// the packet must be dropped and ok is false.
//
//	inner \ outer | Not-ECT   ECT(0)    ECT(1)    CE
//	Not-ECT       | Not-ECT   Not-ECT   Not-ECT   drop
//	ECT(0)        | ECT(0)    ECT(0)    ECT(1)    CE
//	ECT(1)        | ECT(1)    ECT(1)    ECT(1)    CE
//	CE            | CE        CE        CE        CE
func mergeECN(inner []byte, outer uint8) (ok bool) {
	const notECT, ect1, ect0, ce = 0, 1, 2, 3
	was := tos(inner) & 3
	now := was
	switch outer & 3 {
	case ce:
		if was == notECT {
			return false
		}
		now = ce
	case ect1:
		if was == ect0 {
			now = ect1
		}
	}
	if now == was {
		return true
	}
	if inner[0]>>4 == 6 {
		inner[1] = inner[1]&^0x30 | now<<4
		return true
	}
	// Mend the checksum rather than make it, lest a wrong one come out
	// right: RFC 1624, equation 3.
	sum := uint32(^be.Uint16(inner[10:])) + uint32(^be.Uint16(inner))
	inner[1] = inner[1]&^3 | now
	sum += uint32(be.Uint16(inner))
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	be.PutUint16(inner[10:], ^uint16(sum))
	return true
}
