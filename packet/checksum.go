package packet

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"
	"net/netip"
)

// Checksum is the Internet checksum of b (RFC 1071): the complement of the
// ones' complement sum of its 16-bit words. initial is a sum to start from,
// such as PseudoHeader gives, or 0. Over bytes that hold a right checksum the
// result is 0.
func Checksum(b []byte, initial uint32) uint16 {
	// Many bytes at a time, the carry coming round (RFC 1071 section 2 (C)),
	// in the wrong order of bytes, which comes out right in the end (B).
	var sum, carry uint64
	le := binary.LittleEndian
	for ; len(b) >= 64; b = b[64:] {
		p := (*[64]byte)(b)
		sum, carry = bits.Add64(sum, le.Uint64(p[:]), carry)
		sum, carry = bits.Add64(sum, le.Uint64(p[8:]), carry)
		sum, carry = bits.Add64(sum, le.Uint64(p[16:]), carry)
		sum, carry = bits.Add64(sum, le.Uint64(p[24:]), carry)
		sum, carry = bits.Add64(sum, le.Uint64(p[32:]), carry)
		sum, carry = bits.Add64(sum, le.Uint64(p[40:]), carry)
		sum, carry = bits.Add64(sum, le.Uint64(p[48:]), carry)
		sum, carry = bits.Add64(sum, le.Uint64(p[56:]), carry)
	}
	for len(b) >= 8 {
		sum, carry = bits.Add64(sum, le.Uint64(b), carry)
		b = b[8:]
	}
	var rest uint64
	for i, c := range b {
		rest |= uint64(c) << (8 * i)
	}
	sum, carry = bits.Add64(sum, rest, carry)
	sum, carry = bits.Add64(sum, 0, carry)
	sum += carry
	sum = sum>>32 + sum&0xffffffff
	sum = sum>>16&0xffff + sum>>32 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	sum = uint64(bits.ReverseBytes16(uint16(sum))) + uint64(initial)>>16 + uint64(initial)&0xffff
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	return ^uint16(sum)
}

// PseudoHeader is the sum over the pseudo-header that TCP, UDP and ICMPv6
// checksums start with (RFC 9293 section 3.1, RFC 8200 section 8.1). length is
// that of the upper-layer header and its data. Both addresses are of one
// family.
func PseudoHeader(src, dst netip.Addr, proto uint8, length int) uint32 {
	sum := uint32(proto) + uint32(length)>>16 + uint32(length)&0xffff
	if src.Is4() {
		s, d := src.As4(), dst.As4()
		return sum + words(s[:]) + words(d[:])
	}
	s, d := src.As16(), dst.As16()
	return sum + words(s[:]) + words(d[:])
}

// words adds up 16-bit words without folding; for a few of them.
func words(b []byte) (sum uint32) {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(be.Uint16(b))
	}
	return sum
}

// SetChecksum fills in the checksum of an upper-layer segment: header and data
// of TCP, UDP, UDP-Lite, SCTP, ICMP and ICMPv6; of other protocols it changes
// nothing. It reports whether there was a checksum to fill in. Packets that a
// queue shows before the network card has seen them have none yet.
func SetChecksum(segment []byte, src, dst netip.Addr, proto uint8) bool {
	at, least, cover := 0, 0, len(segment)
	pseudo := true
	switch proto {
	case TCP:
		at, least = 16, tcpHeader
	case UDP:
		at, least = 6, udpHeader
	case UDPLite:
		at, least = 6, udpHeader
	case ICMP:
		at, least, pseudo = 2, 4, false
	case ICMPv6:
		at, least = 2, 4
	case SCTP:
		if len(segment) < sctpHeader {
			return false
		}
		setCRC32c(segment)
		return true
	default:
		return false
	}
	if len(segment) < least {
		return false
	}
	if proto == UDPLite {
		if c := int(be.Uint16(segment[4:])); c >= udpHeader && c < cover {
			cover = c
		}
	}
	be.PutUint16(segment[at:], 0)
	var initial uint32
	if pseudo {
		initial = PseudoHeader(src, dst, proto, len(segment))
	}
	sum := Checksum(segment[:cover], initial)
	if sum == 0 && (proto == UDP || proto == UDPLite) {
		sum = 0xffff // 0 says that there is none: RFC 768, RFC 3828 section 3.1
	}
	be.PutUint16(segment[at:], sum)
	return true
}

// setCRC32c fills in the checksum of an SCTP packet, least significant byte first:
// RFC 9260, appendix A.
func setCRC32c(segment []byte) {
	clear(segment[8:12])
	binary.LittleEndian.PutUint32(segment[8:], crc32.Checksum(segment, crc32.MakeTable(crc32.Castagnoli)))
}

// MendSCTP gives an SCTP packet its CRC32c where it has the Internet checksum in
// its place, and reports whether it has changed it. Linux before 6.11 makes such
// packets: where a network card is to compute the CRC32c, and a queue wants packets
// with their checksums, it computes that of TCP. A right CRC32c stays. So does any
// other wrong one, for nobody knows who has damaged it.
func MendSCTP(segment []byte) bool {
	// The card's field was zero, and two bytes of it have been written.
	if len(segment) < sctpHeader || segment[10] != 0 || segment[11] != 0 {
		return false
	}
	was := be.Uint16(segment[8:])
	be.PutUint16(segment[8:], 0)
	sum := Checksum(segment, 0)
	be.PutUint16(segment[8:], was)
	if sum == 0 {
		sum = 0xffff
	}
	if sum != was {
		return false
	}
	setCRC32c(segment)
	return binary.BigEndian.Uint16(segment[8:]) != was || segment[10] != 0 || segment[11] != 0
}
