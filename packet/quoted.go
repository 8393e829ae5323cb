package packet

// Quoted reads into q the packet that p, an ICMP or ICMPv6 error or a redirect,
// is about.
// Of the quoted datagram the IP header and the first 8 bytes of the
// upper-layer header must be there (RFC 792, RFC 1812 section 4.3.2.3, RFC
// 4443 section 2.4(c)), or all of a datagram that is shorter. Only the fields
// in these 8 bytes are read, and of AH those in 12: ports, the sequence number of TCP, ICMP type,
// code and identifier, the SPI. q.Len is what the quoted header states, mostly
// more than was quoted. A p that quotes nothing (see Quotes) gives Truncated.
func (p *Packet) Quoted(q *Packet) Fault {
	b := p.quote()
	if len(b) == 0 {
		*q = Packet{}
		return Truncated
	}
	// Routers have always cut what they quote: its length is not held
	// against the bytes that are there.
	if f := q.network(b, ipv6Header+65535, false); f != OK {
		return f
	}
	if q.Version != p.Version {
		return BadVersion
	}
	if q.FragOffset != 0 {
		return OK
	}
	return q.quotedTransport()
}

// Quotes reports that p is a message that quotes another packet, and that there
// are bytes of it, whether they can be read or not: an error (see ICMPError) or
// an ICMPv6 redirect.
func (p *Packet) Quotes() bool { return len(p.quote()) > 0 }

// quote gives the bytes of the packet that p is about.
func (p *Packet) quote() []byte {
	switch {
	case p.Payload > len(p.Bytes) || !p.HasICMP:
		return nil
	case p.Version == 6 && p.ICMPType == redirect6:
		return p.redirected()
	case !p.ICMPError():
		return nil
	}
	b := p.Bytes[p.Payload:]
	if n := p.quotedLength(); n >= 128 && n < len(b) {
		b = b[:n]
	}
	return b
}

const redirect6 = 137

// redirected gives what the Redirected Header option of an ICMPv6 redirect
// holds: the option begins with type 4, its length in units of 8 bytes, and 6
// bytes of nothing (RFC 4861 section 4.6.3). It stands behind two addresses.
func (p *Packet) redirected() []byte {
	for b := p.Bytes[min(p.Payload+32, len(p.Bytes)):]; len(b) >= 8; {
		n := min(int(b[1])*8, len(b))
		if n == 0 {
			return nil
		}
		if b[0] == 4 {
			return b[8:n]
		}
		b = b[n:]
	}
	return nil
}

// quotedLength is how long the quoted datagram is when an extension structure
// follows it (RFC 4884, section 3 and 4), 0 if nothing says so. It is then at
// least 128 bytes.
func (p *Packet) quotedLength() int {
	b := p.Bytes[p.Transport:]
	if p.Version == 6 {
		if p.ICMPType == 1 || p.ICMPType == 3 {
			return int(b[4]) * 8
		}
		return 0
	}
	if p.ICMPType == 3 || p.ICMPType == 11 || p.ICMPType == 12 {
		return int(b[5]) * 4
	}
	return 0
}

// quotedTransport reads the first 8 bytes of the upper-layer header.
func (p *Packet) quotedTransport() Fault {
	b := p.Bytes[p.Transport:]
	if len(b) < min(8, max(fixedHeader(p.Protocol), p.Len-p.Transport)) {
		return Truncated
	}
	switch p.Protocol {
	case TCP:
		p.ports(b)
		p.Seq = be.Uint32(b[4:])
	case UDP, UDPLite, SCTP:
		p.ports(b)
	case ICMP, ICMPv6:
		if (p.Protocol == ICMP) == (p.Version == 4) {
			p.HasICMP = true
			p.ICMPType, p.ICMPCode = b[0], b[1]
			if isQuery(p.Version, b[0]) {
				p.EchoID = be.Uint16(b[4:])
			}
		}
	case ESP:
		p.HasSPI = true
		p.SPI = be.Uint32(b)
		p.SPISeq = be.Uint32(b[4:])
	case AH:
		p.HasSPI = true
		p.SPI = be.Uint32(b[4:])
		if len(b) >= 12 {
			p.SPISeq = be.Uint32(b[8:])
		}
	}
	return OK
}

// ReportedMTU gives the MTU of the link that a packet was too long for, in
// bytes, of an ICMP "fragmentation needed" (RFC 1191 section 4; 0 from routers
// that do not say) or an ICMPv6 "packet too big" (RFC 4443 section 3.2). ok is
// false for every other packet.
func (p *Packet) ReportedMTU() (mtu int, ok bool) {
	if !p.HasICMP || p.Transport+8 > len(p.Bytes) {
		return 0, false
	}
	b := p.Bytes[p.Transport:]
	switch {
	case p.Protocol == ICMP && b[0] == 3 && b[1] == 4:
		return int(be.Uint16(b[6:])), true
	case p.Protocol == ICMPv6 && b[0] == 2:
		return int(min(be.Uint32(b[4:]), 1<<16)), true
	}
	return 0, false
}
