package packet

import "net/netip"

// Reset appends to dst the TCP reset that answers p, or nothing where none may
// be sent: p is no whole TCP segment, is itself a reset, or does not run from
// one host to one host. RFC 9293, section 3.10.7.1: a segment without ACK is
// answered with sequence number 0 and an acknowledgment of all it took up, one
// with ACK by the sequence number that it acknowledges.
func Reset(dst []byte, p *Packet) []byte {
	if p.Protocol != TCP || !p.HasPorts || p.Fragment || p.SourceRouted || p.TCPFlags&RST != 0 || !answerable(p) {
		return dst
	}
	s := Spec{
		Src: p.Dst, Dst: p.Src, Protocol: TCP,
		SrcPort: p.DstPort, DstPort: p.SrcPort,
		TCPFlags: RST, Seq: p.Ack, DontFragment: true,
	}
	if p.TCPFlags&ACK == 0 {
		s.TCPFlags, s.Seq = RST|ACK, 0
		s.Ack = p.Seq + uint32(p.Len-p.Payload) // SEG.SEQ + SEG.LEN
		if p.TCPFlags&SYN != 0 {
			s.Ack++
		}
		if p.TCPFlags&FIN != 0 {
			s.Ack++
		}
	}
	dst, _ = Append(dst, &s) // on an error dst is as it was: no answer
	return dst
}

// Unreachable appends to dst the ICMP or ICMPv6 error that tells p's sender
// that policy forbids it: destination unreachable, communication
// administratively prohibited (RFC 1812 section 5.2.7.1, RFC 4443 section
// 3.1). It comes from the given address and quotes as much of p as was
// captured and fits in 576 bytes (RFC 1812 section 4.3.2.3), in IPv6 in 1280
// (RFC 4443 section 2.4(c)). Nothing is appended where RFC 1122 section 3.2.2
// or RFC 4443 section 2.4(e) forbid an answer: to an ICMP error or redirect, to
// a later fragment, to a packet that does not run from one host to one host.
func Unreachable(dst []byte, p *Packet, from netip.Addr) []byte {
	return icmpError(dst, p, from, icmpKind{typ4: 3, code4: 13, typ6: 1, code6: 1})
}

// TooBig appends to dst the ICMP or ICMPv6 error that tells p's sender the
// longest datagram that gets through, in bytes: fragmentation needed and DF
// set (RFC 1191 section 4), packet too big (RFC 4443 section 3.2). In all else
// it is like Unreachable.
func TooBig(dst []byte, p *Packet, from netip.Addr, mtu int) []byte {
	return icmpError(dst, p, from, icmpKind{typ4: 3, code4: 4, typ6: 2, word: uint32(mtu)})
}

// icmpKind is what tells one ICMP error from another.
type icmpKind struct {
	typ4, code4, typ6, code6 uint8
	word                     uint32 // the header's second word
}

func icmpError(dst []byte, p *Packet, from netip.Addr, k icmpKind) []byte {
	from = from.Unmap()
	if p.FragOffset != 0 || !answerable(p) || !oneHost(from) || from.Is4() != p.Src.Is4() {
		return dst
	}
	s := Spec{Src: from, Dst: p.Src, Protocol: ICMP, ICMPType: k.typ4, ICMPCode: k.code4, TOS: 0xc0}
	s.EchoID, s.EchoSeq = uint16(k.word>>16), uint16(k.word)
	room := 576 - ipv4Header - icmpHeader
	refuse := p.ICMPError()
	if p.Version == 6 {
		s.Protocol, s.ICMPType, s.ICMPCode, s.TOS = ICMPv6, k.typ6, k.code6, 0
		room = 1280 - ipv6Header - icmpHeader
		// Errors not yet defined are errors too; 137 is redirect.
		refuse = p.HasICMP && (p.ICMPType < 128 || p.ICMPType == 137)
	}
	if refuse {
		return dst
	}
	s.Payload = p.Bytes[:min(len(p.Bytes), room)]
	dst, _ = Append(dst, &s)
	return dst
}

// answerable reports that p ran from one host to one host, and not from a
// loopback address across a network.
func answerable(p *Packet) bool {
	return oneHost(p.Src) && oneHost(p.Dst) && p.Src.IsLoopback() == p.Dst.IsLoopback()
}

// oneHost reports an address that a single host may have, as far as the
// address alone can tell: not unspecified, multicast, broadcast, or reserved
// (RFC 1122 section 3.2.1.3, RFC 1112 section 4).
func oneHost(a netip.Addr) bool {
	if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() {
		return false
	}
	if a.Is4() {
		b := a.As4()
		return b[0] != 0 && b[0] < 240
	}
	return true
}
