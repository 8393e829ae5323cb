package packet

// Sizes in bytes of the fixed part of upper-layer headers.
const (
	tcpHeader  = 20
	udpHeader  = 8
	sctpHeader = 12
	icmpHeader = 8
	espHeader  = 8
	ahHeader   = 12
	greHeader  = 4
)

// fixedHeader is the size of the fixed part of a protocol's header, 0 for a
// protocol whose header Parse does not read.
func fixedHeader(proto uint8) int {
	switch proto {
	case TCP:
		return tcpHeader
	case UDP, UDPLite, ICMP, ICMPv6, ESP, Mobility:
		return 8
	case SCTP, AH:
		return 12
	case GRE:
		return greHeader
	}
	return 0
}

// transport reads the upper-layer header of a whole datagram or of a first
// fragment.
func (p *Packet) transport() Fault {
	b := p.Bytes[p.Transport:]
	switch p.Protocol {
	case TCP:
		return p.tcp(b)
	case UDP:
		return p.udp(b)
	case ICMP:
		if p.Version == 4 {
			return p.icmp(b)
		}
	case ICMPv6:
		if p.Version == 6 {
			return p.icmp(b)
		}
	case ESP:
		return p.esp(b)
	case AH:
		return p.ah(b)
	case SCTP:
		return p.sctp(b)
	case UDPLite:
		return p.udpLite(b)
	case GRE:
		return p.gre(b)
	case Mobility:
		if p.Version == 6 {
			return p.mobility(b)
		}
	}
	return OK
}

// ports reads the ports, which TCP, UDP, UDP-Lite and SCTP have in common.
func (p *Packet) ports(b []byte) {
	p.HasPorts = true
	p.SrcPort = be.Uint16(b)
	p.DstPort = be.Uint16(b[2:])
}

// validTCPFlags has a bit for each combination of FIN, SYN, RST, PSH, ACK and
// URG that a host may send (RFC 9293 section 3.10): SYN alone opens, RST may
// come alone, everything else carries ACK; at most one of SYN, FIN and RST.
// PSH may go with each, URG with all but RST. SYN with FIN was T/TCP, which is
// historic (RFC 6247). The flags are distinct bits, so a shift adds them.
const (
	withPush             = 1 | 1<<PSH
	withPushUrg          = withPush | withPush<<URG
	validTCPFlags uint64 = withPushUrg<<SYN | withPushUrg<<(SYN|ACK) | withPushUrg<<ACK | withPushUrg<<(FIN|ACK) |
		withPush<<RST | withPush<<(RST|ACK)
)

// tcp reads a TCP header. RFC 9293, section 3.1:
//
//	|          Source Port          |       Destination Port        |
//	|                        Sequence Number                        |
//	|                    Acknowledgment Number                      |
//	|  Data |       |C|E|U|A|P|R|S|F|                               |
//	| Offset| Rsrvd |W|C|R|C|S|S|Y|I|            Window             |
//	|           Checksum            |         Urgent Pointer        |
//	|                           [Options]                           |
func (p *Packet) tcp(b []byte) Fault {
	if len(b) < tcpHeader {
		return p.short(p.Transport + tcpHeader)
	}
	p.ports(b)
	p.Seq = be.Uint32(b[4:])
	p.Ack = be.Uint32(b[8:])
	p.TCPFlags = b[13]
	p.Window = be.Uint16(b[14:])
	header := int(b[12]>>4) * 4
	if header < tcpHeader {
		return BadHeaderLength
	}
	if header > len(b) {
		if !p.Fragment && p.Transport+header > p.Len {
			return BadHeaderLength
		}
		return p.short(p.Transport + header)
	}
	p.Payload = p.Transport + header
	if validTCPFlags>>(p.TCPFlags&0x3f)&1 == 0 {
		return BadTransport
	}
	return OK
}

// udp reads a UDP header (RFC 768). A length of 0 is for jumbograms only (RFC
// 2675 section 4). A length below what IP carries is no fault: RFC 9868 puts
// UDP options there.
func (p *Packet) udp(b []byte) Fault {
	if len(b) < udpHeader {
		return p.short(p.Transport + udpHeader)
	}
	p.ports(b)
	length := int(be.Uint16(b[4:]))
	if length < udpHeader || !p.Fragment && p.Transport+length > p.Len {
		return BadLength
	}
	p.Payload = p.Transport + udpHeader
	return OK
}

// udpLite reads a UDP-Lite header: UDP with a checksum coverage, 0 or at
// least the header and at most the datagram, in place of the length (RFC
// 3828, section 3.1).
func (p *Packet) udpLite(b []byte) Fault {
	if len(b) < udpHeader {
		return p.short(p.Transport + udpHeader)
	}
	p.ports(b)
	coverage := int(be.Uint16(b[4:]))
	if coverage != 0 && (coverage < udpHeader || !p.Fragment && p.Transport+coverage > p.Len) {
		return BadLength
	}
	p.Payload = p.Transport + udpHeader
	return OK
}

// sctp reads the SCTP common header: ports, verification tag, checksum (RFC
// 9260, section 3.1).
func (p *Packet) sctp(b []byte) Fault {
	if len(b) < sctpHeader {
		return p.short(p.Transport + sctpHeader)
	}
	p.ports(b)
	p.Payload = p.Transport + sctpHeader
	return OK
}

// icmp reads an ICMP or ICMPv6 header. ICMP messages have 8 (RFC 792); of ICMPv6 some have 4 (RFC 4286 section 4), but
// errors and echo have 8 (RFC 4443 section 3 and 4).
//
//	|     Type      |     Code      |          Checksum             |
//	|           Identifier          |        Sequence Number        |
func (p *Packet) icmp(b []byte) Fault {
	least := icmpHeader
	if p.Version == 6 && len(b) >= 4 && b[0] > 4 && !isQuery(6, b[0]) {
		least = max(4, min(icmpHeader, p.Len-p.Transport))
	}
	if len(b) < least {
		return p.short(p.Transport + least)
	}
	p.HasICMP = true
	p.ICMPType, p.ICMPCode = b[0], b[1]
	if isQuery(p.Version, b[0]) {
		p.EchoID = be.Uint16(b[4:])
	}
	p.Payload = p.Transport + least
	return OK
}

// isQuery reports the ICMP types with an identifier in bytes 4 and 5: echo,
// timestamp, information and address mask (RFC 792, RFC 950), extended echo
// (RFC 8335).
func isQuery(version, kind uint8) bool {
	if version == 6 {
		return kind == 128 || kind == 129 || kind == 160 || kind == 161
	}
	const queries uint64 = 1<<0 | 1<<8 | 1<<13 | 1<<14 | 1<<15 | 1<<16 | 1<<17 | 1<<18 | 1<<42 | 1<<43
	return kind < 64 && queries>>kind&1 != 0
}

// esp reads the clear part of an ESP packet (RFC 4303, section 2). SPI 0 is
// never sent (section 2.1).
func (p *Packet) esp(b []byte) Fault {
	if len(b) < espHeader {
		return p.short(p.Transport + espHeader)
	}
	p.HasSPI = true
	p.SPI = be.Uint32(b)
	p.SPISeq = be.Uint32(b[4:])
	p.Payload = p.Transport + espHeader
	if p.SPI == 0 {
		return BadTransport
	}
	return OK
}

// ah reads an AH header (RFC 4302, section 2). Payload Len counts words of
// four bytes, less two.
//
//	| Next Header   |  Payload Len  |          RESERVED             |
//	|                 Security Parameters Index (SPI)               |
//	|                    Sequence Number Field                      |
//	|                Integrity Check Value (variable)               |
func (p *Packet) ah(b []byte) Fault {
	if len(b) < ahHeader {
		return p.short(p.Transport + ahHeader)
	}
	p.HasSPI = true
	p.SPI = be.Uint32(b[4:])
	p.SPISeq = be.Uint32(b[8:])
	header := (int(b[1]) + 2) * 4
	if header < ahHeader {
		return BadHeaderLength
	}
	if header > len(b) {
		if !p.Fragment && p.Transport+header > p.Len {
			return BadHeaderLength
		}
		return p.short(p.Transport + header)
	}
	p.Payload = p.Transport + header
	if p.SPI == 0 { // RFC 4302 section 2.4
		return BadTransport
	}
	return OK
}

// gre reads a GRE header for its length: RFC 2784 and 2890 with version 0, RFC
// 2637 (PPTP) with version 1. Of other versions, and of the routing of RFC
// 1701, nothing beyond the first word is known.
//
//	|C|R|K|S|   Reserved  |A| ..  | Ver |         Protocol Type     |
//	|  Checksum, Key, Sequence Number, Acknowledgment: a word each  |
func (p *Packet) gre(b []byte) Fault {
	if len(b) < greHeader {
		return p.short(p.Transport + greHeader)
	}
	const checksum, routing, key, sequence, ack = 0x8000, 0x4000, 0x2000, 0x1000, 0x0080
	flags, header := be.Uint16(b), greHeader
	present := uint16(checksum | key | sequence)
	switch flags & (routing | 7) {
	case 0:
	case 1:
		present = key | sequence | ack
	default:
		present = 0
	}
	for f := flags & present; f != 0; f &= f - 1 {
		header += 4
	}
	if header > len(b) {
		return p.short(p.Transport + header)
	}
	p.Payload = p.Transport + header
	return OK
}

// mobility reads a Mobility header for its length. It ends the chain: its next
// header is "no next header" (RFC 6275, section 6.1.1), and what would follow
// is judged by nobody.
func (p *Packet) mobility(b []byte) Fault {
	if len(b) < 8 {
		return p.short(p.Transport + 8)
	}
	if b[0] != NoNext {
		return BadChain
	}
	header := (int(b[1]) + 1) * 8
	if p.Transport+header > p.Len {
		if p.Fragment {
			return BadFragment
		}
		return BadHeaderLength
	}
	if header > len(b) {
		return Truncated
	}
	p.Payload = p.Transport + header
	return OK
}
