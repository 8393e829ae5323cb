// Package packet turns bytes into header fields and header fields into bytes,
// for IPv4 and IPv6 alike. It knows no policy and no cryptography.
//
// Parse reads one IP datagram. Whatever the bytes are, it ends in a filled
// Packet or in a Fault; it never panics, never reads past the slice and never
// allocates, because it runs once for each packet of the host.
//
// Lengths come first, meaning second: no field is read before the length that
// covers it has been held against the bytes that are there.
//
// Limits: IPv6 jumbograms (RFC 2675) are refused, but in captures. Checksums are not verified:
// the kernel has done so inbound, and outbound they are often not filled in
// yet. Source addresses are not judged here. A Packet refers to the caller's
// bytes and is valid only as long as they are.
package packet

import "net/netip"

// Packet holds what ipfw needs of one IP datagram. The zero value is empty;
// Parse overwrites every field, so one Packet can be used again and again.
type Packet struct {
	// Bytes is what was captured, from the first byte of the IP header.
	// It may be shorter than Len when the capture was cut; it is never
	// longer, what a link layer padded is left out.
	Bytes []byte

	Src, Dst netip.Addr // never IPv4-mapped, never with a zone

	// Len is the length of the datagram in bytes as its header states it.
	Len int
	// Transport is the offset in Bytes of the upper-layer header: what
	// follows the IPv4 header or the last IPv6 extension header that Parse
	// walks over. For a later fragment it is the offset of the data.
	Transport int
	// Payload is the offset of what follows the upper-layer header; equal to
	// Transport for a protocol whose header Parse does not know, for a later
	// fragment and for a quoted packet. For AH it is past the integrity
	// check value, at the header that the AH protects.
	Payload int

	Version uint8 // 4 or 6
	// Protocol is the upper-layer protocol, an IANA protocol number. ESP and
	// AH are upper-layer protocols: what they carry is read once they have
	// been opened. For a later IPv6 fragment it is the Next Header field of
	// the Fragment header, which may name an extension header.
	Protocol uint8
	TOS      uint8 // IPv4 type of service or IPv6 traffic class: DSCP<<2 | ECN
	TTL      uint8 // IPv4 time to live or IPv6 hop limit

	// SourceRouted says that Dst is a stop on the way and not the end of it:
	// an IPv4 source route option or an IPv6 Routing header with segments
	// left (RFC 791 section 3.1, RFC 8200 section 4.4).
	SourceRouted bool

	// Fragmentation (RFC 791 section 3.2, RFC 8200 section 4.5).
	Fragment     bool   // the datagram is a fragment, first or later; not an atomic one (RFC 6946)
	MoreFragment bool   // the M flag
	DontFragment bool   // IPv4 DF; always true for IPv6
	FragOffset   int    // in bytes; 0 for a first fragment
	FragID       uint32 // IPv4 identification (16 bits) or IPv6 (32 bits); IPv4 sets it on whole datagrams too

	// Ports of TCP, UDP, UDP-Lite and SCTP; HasPorts says that they are there.
	HasPorts         bool
	SrcPort, DstPort uint16

	// TCP (RFC 9293 section 3.1).
	TCPFlags uint8
	Seq, Ack uint32
	Window   uint16

	// ICMP in IPv4 and ICMPv6 in IPv6 (RFC 792, RFC 4443). EchoID is the
	// identifier of echo and of the other queries and replies that have one.
	HasICMP            bool
	ICMPType, ICMPCode uint8
	EchoID             uint16

	// ESP and AH (RFC 4303 section 2, RFC 4302 section 2). The header is at
	// Transport.
	HasSPI bool
	SPI    uint32
	SPISeq uint32
}

// TCP flags, RFC 9293 section 3.1.
const (
	FIN = 1 << 0
	SYN = 1 << 1
	RST = 1 << 2
	PSH = 1 << 3
	ACK = 1 << 4
	URG = 1 << 5
	ECE = 1 << 6
	CWR = 1 << 7
)

// DSCP is the differentiated services code point, 0 to 63 (RFC 2474).
func (p *Packet) DSCP() uint8 { return p.TOS >> 2 }

// LaterFragment reports a fragment that does not hold the upper-layer header.
func (p *Packet) LaterFragment() bool { return p.FragOffset != 0 }

// ICMPError reports an ICMP or ICMPv6 message that quotes the packet it is
// about, which Quoted then reads.
func (p *Packet) ICMPError() bool {
	if !p.HasICMP {
		return false
	}
	if p.Version == 6 {
		return p.ICMPType >= 1 && p.ICMPType <= 4
	}
	return p.ICMPType < 32 && icmpErrors>>p.ICMPType&1 != 0
}

// icmpErrors has a bit for each ICMP type that is an error message (RFC 1122
// section 3.2.2): destination unreachable, source quench, redirect, time
// exceeded, parameter problem.
const icmpErrors uint32 = 1<<3 | 1<<4 | 1<<5 | 1<<11 | 1<<12

// IANA protocol numbers that ipfw itself has to know.
const (
	HopByHop    = 0
	ICMP        = 1
	IGMP        = 2
	IPv4        = 4
	TCP         = 6
	UDP         = 17
	IPv6        = 41
	Routing     = 43
	FragmentHdr = 44
	GRE         = 47
	ESP         = 50
	AH          = 51
	ICMPv6      = 58
	NoNext      = 59
	DestOptions = 60
	SCTP        = 132
	Mobility    = 135
	UDPLite     = 136
)
