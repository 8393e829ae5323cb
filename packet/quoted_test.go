package packet

import "testing"

func TestQuoted(t *testing.T) {
	var (
		syn  = build(t, Spec{Protocol: TCP, TCPFlags: SYN, SrcPort: 1000, DstPort: 80, Seq: 7})
		dns  = build(t, Spec{Protocol: UDP, SrcPort: 1000, DstPort: 53, Payload: make([]byte, 600)})
		ping = build(t, Spec{Protocol: ICMP, ICMPType: 8, EchoID: 9})
		esp  = build(t, Spec{Protocol: ESP, SPI: 256, SPISeq: 2, Payload: make([]byte, 40)})
		ah   = build(t, Spec{Protocol: AH, SPI: 257, ICV: make([]byte, 12), Next: TCP})
		syn6 = build(t, six(Spec{Protocol: TCP, TCPFlags: SYN, SrcPort: 1000, DstPort: 80, Seq: 7}, Extension{Header: HopByHop}))
		part = build(t, Spec{Protocol: UDP, Fragment: true, FragOffset: 1480, Payload: make([]byte, 16)})
	)
	icmp := func(kind uint8, quote []byte) []byte {
		return build(t, Spec{Protocol: ICMP, ICMPType: kind, Payload: quote})
	}
	icmp6 := func(kind uint8, quote []byte) []byte {
		return build(t, six(Spec{Protocol: ICMPv6, ICMPType: kind, Payload: quote}))
	}
	// RFC 4884: the quote is padded to 128 bytes, an extension follows.
	extended := func(words byte) []byte {
		quote := append(make([]byte, 0, 200), dns[:28]...)
		return build(t, Spec{Protocol: ICMP, ICMPType: 11, EchoID: uint16(words), Payload: append(quote[:128], 0x20, 0, 0, 0)})
	}
	// RFC 4861 section 4.6.3: target, destination, options.
	redirect := func(quote []byte) []byte {
		b := append(make([]byte, 32), 2, 1, 0, 0, 0, 0, 0, 0, 4, byte(1+len(quote)/8), 0, 0, 0, 0, 0, 0)
		return icmp6(137, append(b, quote...))
	}
	rows := []struct {
		want Fault
		name string
		b    []byte
		q    Packet // what must be there, of Protocol, ports, Seq, Len, ICMPType, EchoID, SPI
	}{
		{OK, "whole SYN", icmp(3, syn), Packet{Protocol: TCP, HasPorts: true, SrcPort: 1000, DstPort: 80, Seq: 7, Len: 40}},
		{OK, "SYN cut after 8 bytes", icmp(3, syn[:28]), Packet{Protocol: TCP, HasPorts: true, SrcPort: 1000, DstPort: 80, Seq: 7, Len: 40}},
		{Truncated, "SYN cut after 7 bytes", icmp(3, syn[:27]), Packet{Protocol: TCP, Len: 40}},
		{Truncated, "IP header cut", icmp(3, syn[:19]), Packet{}},
		{Truncated, "nothing quoted", icmp(3, nil), Packet{}},
		{OK, "UDP, most of it cut", icmp(11, dns[:28]), Packet{Protocol: UDP, HasPorts: true, SrcPort: 1000, DstPort: 53, Len: 628}},
		{OK, "source quench", icmp(4, dns[:28]), Packet{Protocol: UDP, HasPorts: true, SrcPort: 1000, DstPort: 53, Len: 628}},
		{OK, "redirect", icmp(5, dns[:28]), Packet{Protocol: UDP, HasPorts: true, SrcPort: 1000, DstPort: 53, Len: 628}},
		{OK, "parameter problem", icmp(12, dns[:28]), Packet{Protocol: UDP, HasPorts: true, SrcPort: 1000, DstPort: 53, Len: 628}},
		{OK, "echo request", icmp(3, ping), Packet{Protocol: ICMP, HasICMP: true, ICMPType: 8, EchoID: 9, Len: 28}},
		{OK, "ESP", icmp(3, esp[:28]), Packet{Protocol: ESP, HasSPI: true, SPI: 256, SPISeq: 2, Len: 68}},
		{OK, "AH", icmp(3, ah[:28]), Packet{Protocol: AH, HasSPI: true, SPI: 257, Len: 44}},
		{OK, "later fragment", icmp(11, part), Packet{Protocol: UDP, Len: 36, Fragment: true}},
		{OK, "4 bytes of an unknown protocol, whole", icmp(3, build(t, Spec{Protocol: 99, Payload: make([]byte, 4)})), Packet{Protocol: 99, Len: 24}},
		{Truncated, "4 bytes of an unknown protocol, cut", icmp(3, build(t, Spec{Protocol: 99, Payload: make([]byte, 6)})[:24]), Packet{Protocol: 99, Len: 26}},
		{OK, "with an extension", extended(32), Packet{Protocol: UDP, HasPorts: true, SrcPort: 1000, DstPort: 53, Len: 628}},
		{OK, "extension length too long to be one", extended(99), Packet{Protocol: UDP, HasPorts: true, SrcPort: 1000, DstPort: 53, Len: 628}},
		{BadVersion, "IPv6 in ICMP", icmp(3, syn6), Packet{Protocol: TCP, Len: 68}},
		{BadVersion, "no version", icmp(3, make([]byte, 40)), Packet{}},
		{BadHeaderLength, "IHL 4", icmp(3, append([]byte{0x44}, syn[1:]...)), Packet{Protocol: TCP, Len: 40}},
		{Truncated, "echo request quotes nothing", build(t, Spec{Protocol: ICMP, ICMPType: 8, Payload: syn}), Packet{}},
		{OK, "IPv6 SYN", icmp6(1, syn6), Packet{Protocol: TCP, HasPorts: true, SrcPort: 1000, DstPort: 80, Seq: 7, Len: 68}},
		{OK, "IPv6 SYN, cut after 8 bytes", icmp6(2, syn6[:56]), Packet{Protocol: TCP, HasPorts: true, SrcPort: 1000, DstPort: 80, Seq: 7, Len: 68}},
		{Truncated, "IPv6 SYN, cut after 7 bytes", icmp6(3, syn6[:55]), Packet{Protocol: TCP, Len: 68}},
		{Truncated, "IPv6 chain cut", icmp6(4, syn6[:44]), Packet{Protocol: HopByHop, Len: 68}},
		{BadVersion, "IPv4 in ICMPv6", icmp6(1, syn), Packet{Protocol: TCP, Len: 40}},
		{Truncated, "ICMPv6 redirect that quotes nothing", icmp6(137, syn6), Packet{}},
		{OK, "ICMPv6 redirect", redirect(syn6[:64]), Packet{Protocol: TCP, HasPorts: true, SrcPort: 1000, DstPort: 80, Seq: 7, Len: 68}},
		{Truncated, "ICMPv6 redirect, cut", redirect(syn6[:40]), Packet{Protocol: HopByHop, Len: 68}},
	}
	for _, r := range rows {
		var p Packet
		if f := Parse(&p, r.b, len(r.b)); f != OK {
			t.Errorf("%s: outer packet: %v", r.name, f)
			continue
		}
		q := Packet{SPI: 77, EchoID: 77, HasSPI: true}
		if got := p.Quoted(&q); got != r.want {
			t.Errorf("%s: got %v, want %v", r.name, got, r.want)
		}
		got := Packet{
			Protocol: q.Protocol, HasPorts: q.HasPorts, SrcPort: q.SrcPort, DstPort: q.DstPort, Seq: q.Seq, Len: q.Len, Fragment: q.Fragment,
			HasICMP: q.HasICMP, ICMPType: q.ICMPType, EchoID: q.EchoID, HasSPI: q.HasSPI, SPI: q.SPI, SPISeq: q.SPISeq,
		}
		if describe(got) != describe(r.q) {
			t.Errorf("%s:\n got %s\nwant %s", r.name, describe(got), describe(r.q))
		}
	}
}

// TestQuotedLength: what follows the quoted datagram is not part of it (RFC
// 4884 section 3 and 4: length in words of 4 bytes, in ICMPv6 of 8).
func TestQuotedLength(t *testing.T) {
	four := build(t, Spec{Protocol: UDP, Payload: make([]byte, 600)})[:300]
	six6 := build(t, six(Spec{Protocol: UDP, Payload: make([]byte, 600)}))[:300]
	rows := []struct {
		want int // bytes of the quoted datagram
		spec Spec
	}{
		{128, Spec{Protocol: ICMP, ICMPType: 3, EchoID: 32, Payload: four}},
		{160, Spec{Protocol: ICMP, ICMPType: 11, EchoID: 40, Payload: four}},
		{128, Spec{Protocol: ICMP, ICMPType: 12, EchoID: 32, Payload: four}},
		{300, Spec{Protocol: ICMP, ICMPType: 4, EchoID: 32, Payload: four}},                              // has no length field
		{300, Spec{Protocol: ICMP, ICMPType: 3, EchoID: 31, Payload: four}},                              // below 128 bytes
		{300, Spec{Protocol: ICMP, ICMPType: 3, EchoID: 76, Payload: four}},                              // more than there is
		{128, six(Spec{Protocol: ICMPv6, ICMPType: 1, EchoID: 16 << 8, Payload: six6})},                  // in the first byte
		{136, six(Spec{Protocol: ICMPv6, ICMPType: 3, EchoID: 17 << 8, Payload: six6})},                  //
		{300, six(Spec{Protocol: ICMPv6, ICMPType: 2, EchoID: 16 << 8, Payload: six6})},                  // an MTU stands there
		{300, six(Spec{Protocol: ICMPv6, ICMPType: 1, EchoID: 15 << 8, EchoSeq: 0xffff, Payload: six6})}, // below 128 bytes
	}
	for _, r := range rows {
		var q Packet
		if f := parsed(t, build(t, r.spec)).Quoted(&q); f != OK || len(q.Bytes) != r.want {
			t.Errorf("type %d, %04x: %v, %d bytes, want %d", r.spec.ICMPType, r.spec.EchoID, f, len(q.Bytes), r.want)
		}
	}
}
