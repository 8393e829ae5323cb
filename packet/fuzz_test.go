package packet

import (
	"bytes"
	"testing"
)

// seeds are packets of every kind that Parse tells apart.
func seeds(f *testing.F) (out [][]byte) {
	for _, s := range []Spec{
		{Protocol: TCP, TCPFlags: SYN, TCPOptions: []byte{2, 4, 5, 180}},
		{Protocol: UDP, IPv4Options: []byte{131, 7, 4, 1, 2, 3, 4}, Payload: []byte("abc")},
		{Protocol: UDPLite, Coverage: 8}, {Protocol: SCTP}, {Protocol: ICMP, ICMPType: 8}, {Protocol: GRE, GREKey: 1},
		{Protocol: ESP, SPI: 256, Payload: make([]byte, 24)}, {Protocol: AH, SPI: 256, ICV: make([]byte, 12), Next: TCP},
		{Protocol: UDP, Fragment: true, Payload: make([]byte, 8)}, {Protocol: TCP, Fragment: true, LastFragment: true, FragOffset: 1480, Payload: []byte("x")},
	} {
		b := build(f, s)
		out = append(out, b)
		out = append(out, build(f, Spec{Protocol: ICMP, ICMPType: 3, ICMPCode: 1, Payload: b}))
		s.IPv4Options = nil
		b = build(f, six(s, Extension{Header: HopByHop}, Extension{Routing, []byte{4, 1, 0, 0, 0, 0}}, Extension{Header: DestOptions}))
		out = append(out, b)
		out = append(out, build(f, six(Spec{Protocol: ICMPv6, ICMPType: 1, Payload: b})))
	}
	return append(out, build(f, six(Spec{Protocol: ICMPv6, ICMPType: 135, Payload: make([]byte, 16)})), build(f, six(Spec{Protocol: Mobility, Raw: true, Payload: []byte{NoNext, 7: 0}})))
}

// FuzzParse: any bytes end in a Packet that holds the invariants or in a
// Fault; a shorter capture of the same datagram reads the same or is Truncated;
// the answers to it parse and are never answered themselves.
func FuzzParse(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b, uint16(0))
		f.Add(b[:len(b)*3/4], uint16(len(b)-len(b)*3/4))
	}
	f.Fuzz(func(t *testing.T, b []byte, cut uint16) {
		var p, q Packet
		before := bytes.Clone(b)
		wire := len(b) + int(cut)
		got := Parse(&p, b, wire)
		if !bytes.Equal(b, before) {
			t.Fatal("Parse changed the bytes")
		}
		if int(got) >= Faults {
			t.Fatalf("fault %d", got)
		}
		checkInvariants(t, &p, b, got)
		if got != OK {
			return
		}
		if n := p.Payload; Parse(&q, b[:n], wire) != OK || q.Payload != p.Payload || q.SrcPort != p.SrcPort || q.EchoID != p.EchoID || q.SPI != p.SPI || q.Protocol != p.Protocol {
			t.Fatalf("without payload: %+v\n%+v", q, p)
		}
		for _, answer := range [][]byte{Reset(nil, &p), Unreachable(nil, &p, p.Dst)} {
			if len(answer) == 0 {
				continue
			}
			if f := Parse(&q, answer, len(answer)); f != OK || q.Dst != p.Src || q.Len != len(answer) {
				t.Fatalf("answer: %v %+v", f, q)
			}
			if len(Reset(nil, &q)) > 0 || q.HasICMP && len(Unreachable(nil, &q, q.Dst)) > 0 {
				t.Fatalf("an answer is answered: %+v", q)
			}
			if !q.HasICMP {
				continue
			}
			var inner Packet
			if f := q.Quoted(&inner); f == OK && (inner.Src != p.Src || inner.Dst != p.Dst || inner.SrcPort != p.SrcPort || inner.SPI != p.SPI || inner.Protocol != p.Protocol) {
				t.Fatalf("quoted: %v\n%+v\n%+v", f, inner, p)
			}
		}
	})
}

// FuzzQuoted: whatever an ICMP error quotes ends in a Packet or in a Fault.
func FuzzQuoted(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b, uint8(3), uint32(0))
		f.Add(b, uint8(1), uint32(0x01000000))
	}
	f.Fuzz(func(t *testing.T, quote []byte, kind uint8, word uint32) {
		for _, s := range []Spec{{Protocol: ICMP}, six(Spec{Protocol: ICMPv6})} {
			s.ICMPType, s.EchoID, s.EchoSeq, s.Payload = kind, uint16(word>>16), uint16(word), quote
			if len(quote) > 65000 {
				return
			}
			b := build(t, s)
			var p, q Packet
			if f := Parse(&p, b, len(b)); f != OK {
				t.Fatal(f)
			}
			got := p.Quoted(&q)
			if got == OK && (q.Version != p.Version || !p.ICMPError()) {
				t.Fatalf("quoted by %+v: %+v", p, q)
			}
			if q.Transport > q.Payload || q.Payload > len(q.Bytes) || len(q.Bytes) > len(quote) || q.Src.Is4In6() {
				t.Fatalf("%+v", q)
			}
			// What parses as a whole is quoted alike, as long as the
			// quote has 8 bytes of the upper layer.
			var whole Packet
			if f := Parse(&whole, quote, len(quote)); f == OK && got == OK && word&0xff0000 == 0 && word>>24 == 0 {
				if q.Src != whole.Src || q.Protocol != whole.Protocol || q.Transport != whole.Transport || q.SrcPort != whole.SrcPort ||
					q.ICMPType != whole.ICMPType || q.EchoID != whole.EchoID || q.SPI != whole.SPI || q.Seq != whole.Seq {
					t.Fatalf("quoted %+v\n whole %+v", q, whole)
				}
			}
		}
	})
}

// FuzzBuildParse: what Build makes, Parse reads back.
func FuzzBuildParse(f *testing.F) {
	for _, proto := range []uint8{TCP, UDP, UDPLite, SCTP, ICMP, ICMPv6, ESP, AH, GRE, Mobility, NoNext, 99} {
		f.Add(false, proto, uint8(SYN), uint16(1), uint16(2), uint32(3), uint32(4), []byte(nil), []byte("payload"), uint16(0), false)
		f.Add(true, proto, uint8(ACK), uint16(1), uint16(2), uint32(3), uint32(4), []byte{5, 2, 0, 0}, []byte("payload"), uint16(3), true)
	}
	f.Fuzz(func(t *testing.T, v6 bool, proto, flags uint8, sport, dport uint16, seq, ack uint32, options, payload []byte, offset uint16, last bool) {
		s := Spec{
			Src: v4a, Dst: v4b, Protocol: proto, TCPFlags: flags, SrcPort: sport, DstPort: dport, Seq: seq, Ack: ack, Window: dport,
			ICMPType: flags, EchoID: sport, SPI: seq, SPISeq: ack, ICV: options, ID: seq, TTL: flags, TOS: flags,
			Payload: payload, Fragment: offset != 0, FragOffset: int(offset&^1) * 4, LastFragment: last,
		}
		if v6 && isExtension(proto) {
			return // the payload would be part of the chain
		}
		s.IPv4Options = options
		if v6 {
			s = six(s, Extension{DestOptions, options})
		}
		b, err := Build(s)
		if err != nil {
			if len(b) != 0 {
				t.Fatal("bytes and an error")
			}
			return
		}
		var p Packet
		got := Parse(&p, b, len(b))
		checkInvariants(t, &p, b, got)
		if p.Len != len(b) || p.Src != s.Src || p.Dst != s.Dst || p.TOS != s.TOS || p.TTL != max(1, s.TTL) && s.TTL != 0 {
			t.Fatalf("%+v\n%+v", p, s)
		}
		if got != OK { // the options may be no options, the flags no flags
			return
		}
		if !v6 && Checksum(b[:int(b[0]&15)*4], 0) != 0 {
			t.Fatal("IPv4 header checksum")
		}
		if p.FragOffset != s.FragOffset || p.MoreFragment != (s.Fragment && !last) {
			t.Fatalf("%+v\n%+v", p, s)
		}
		if p.HasPorts && (p.SrcPort != sport || p.DstPort != dport) || p.HasICMP && p.ICMPType != flags || p.HasSPI && (p.SPI != seq || p.SPISeq != ack) {
			t.Fatalf("%+v\n%+v", p, s)
		}
		if proto == TCP && p.HasPorts && (p.Seq != seq || p.Ack != ack || p.TCPFlags != flags || p.Window != dport) {
			t.Fatalf("%+v\n%+v", p, s)
		}
		if p.Fragment {
			return
		}
		if (p.HasPorts || p.HasICMP || p.HasSPI) && string(b[p.Payload:]) != string(payload) {
			t.Fatalf("payload at %d of %d: %+v", p.Payload, len(b), s)
		}
		checkTransportSum(t, &p)
	})
}

// checkTransportSum verifies the upper-layer checksum of a whole packet.
func checkTransportSum(t testing.TB, p *Packet) {
	t.Helper()
	segment := p.Bytes[p.Transport:]
	sum := uint16(0)
	switch {
	case p.Protocol == TCP || p.Protocol == UDP || p.Protocol == ICMPv6 && p.Version == 6:
		sum = Checksum(segment, PseudoHeader(p.Src, p.Dst, p.Protocol, len(segment)))
	case p.Protocol == ICMP && p.Version == 4:
		sum = Checksum(segment, 0)
	}
	if sum != 0 {
		t.Fatalf("checksum: %04x is left over\n%x", sum, p.Bytes)
	}
}
