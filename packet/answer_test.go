package packet

import (
	"net/netip"
	"testing"
)

func parsed(t *testing.T, b []byte) *Packet {
	t.Helper()
	p := new(Packet)
	if f := Parse(p, b, len(b)); f != OK {
		t.Fatalf("%v\n%x", f, b)
	}
	return p
}

func TestReset(t *testing.T) {
	hello := []byte("hello")
	rows := []struct {
		name  string
		spec  Spec
		flags uint8 // 0: no answer
		seq   uint32
		ack   uint32
	}{
		// RFC 9293 section 3.10.7.1.
		{"SYN", Spec{TCPFlags: SYN, Seq: 100}, RST | ACK, 0, 101},
		{"SYN at the end of the sequence space", Spec{TCPFlags: SYN, Seq: 0xffffffff}, RST | ACK, 0, 0},
		{"SYN with data and options", Spec{TCPFlags: SYN, Seq: 100, Payload: hello, TCPOptions: []byte{2, 4, 5, 180}}, RST | ACK, 0, 106},
		{"SYN ACK", Spec{TCPFlags: SYN | ACK, Seq: 100, Ack: 500}, RST, 500, 0},
		{"data", Spec{TCPFlags: PSH | ACK, Seq: 100, Ack: 500, Payload: hello}, RST, 500, 0},
		{"FIN", Spec{TCPFlags: FIN | ACK, Seq: 100, Ack: 500}, RST, 500, 0},
		{"RST", Spec{TCPFlags: RST, Seq: 100}, 0, 0, 0},
		{"RST ACK", Spec{TCPFlags: RST | ACK, Seq: 100, Ack: 500}, 0, 0, 0},
		// Not to or from one host.
		{"to broadcast", Spec{TCPFlags: SYN, Dst: netip.MustParseAddr("255.255.255.255")}, 0, 0, 0},
		{"to multicast", Spec{TCPFlags: SYN, Dst: netip.MustParseAddr("224.0.0.1")}, 0, 0, 0},
		{"from nowhere", Spec{TCPFlags: SYN, Src: netip.MustParseAddr("0.0.0.0")}, 0, 0, 0},
		{"from loopback to a network", Spec{TCPFlags: SYN, Src: netip.MustParseAddr("127.0.0.1")}, 0, 0, 0},
		{"first fragment", Spec{TCPFlags: SYN, Fragment: true, Payload: make([]byte, 12)}, 0, 0, 0},
		{"later fragment", Spec{Fragment: true, FragOffset: 800, Payload: make([]byte, 12)}, 0, 0, 0},
		{"source routed", Spec{TCPFlags: SYN, IPv4Options: []byte{131, 7, 4, 192, 0, 2, 9}}, 0, 0, 0},
		{"UDP", Spec{Protocol: UDP}, 0, 0, 0},
	}
	for _, v6 := range []bool{false, true} {
		for _, r := range rows {
			s := r.spec
			if s.Protocol == 0 {
				s.Protocol = TCP
			}
			s.SrcPort, s.DstPort = 40000, 80
			if v6 && (s.Src.IsValid() || s.Dst.IsValid() || s.IPv4Options != nil) {
				continue
			}
			src, dst := v4a, v4b
			if v6 {
				src, dst = v6a, v6b
				s.Extensions = []Extension{{Header: DestOptions}}
			}
			if !s.Src.IsValid() {
				s.Src = src
			}
			if !s.Dst.IsValid() {
				s.Dst = dst
			}
			p := parsed(t, build(t, s))
			got := Reset([]byte("keep"), p)
			if string(got[:4]) != "keep" {
				t.Fatalf("%s: dst was overwritten", r.name)
			}
			if got = got[4:]; r.flags == 0 {
				if len(got) != 0 {
					t.Errorf("%s: answered with %x", r.name, got)
				}
				continue
			}
			a := parsed(t, got)
			if a.Src != s.Dst || a.Dst != s.Src || a.SrcPort != 80 || a.DstPort != 40000 || a.TCPFlags != r.flags || a.Seq != r.seq || a.Ack != r.ack || a.Len != a.Payload {
				t.Errorf("%s: %+v", r.name, *a)
			}
			checkTransportSum(t, a)
		}
	}
	// FIN takes up a sequence number too.
	fin := parsed(t, build(t, Spec{Protocol: TCP, TCPFlags: ACK, Seq: 100}))
	fin.TCPFlags = FIN
	if a := parsed(t, Reset(nil, fin)); a.Ack != 101 {
		t.Errorf("FIN: acknowledges %d, want 101", a.Ack)
	}
	// The length counts, not what was captured.
	b := build(t, Spec{Protocol: TCP, TCPFlags: SYN, Payload: make([]byte, 100)})
	var p Packet
	if f := Parse(&p, b[:40], len(b)); f != OK {
		t.Fatal(f)
	}
	if a := parsed(t, Reset(nil, &p)); a.Ack != 101 {
		t.Errorf("cut capture: acknowledges %d, want 101", a.Ack)
	}
}

func TestUnreachable(t *testing.T) {
	addr := netip.MustParseAddr
	big := make([]byte, 2000)
	quote := func(kind uint8) Spec { return Spec{Protocol: ICMP, ICMPType: kind} }
	quote6 := func(kind uint8) Spec { return six(Spec{Protocol: ICMPv6, ICMPType: kind}) }
	rows := []struct {
		size int // of the answer; 0: none
		name string
		spec Spec
	}{
		{20 + 8 + 28, "UDP", Spec{Protocol: UDP}},
		{576, "big UDP (RFC 1812 section 4.3.2.3)", Spec{Protocol: UDP, Payload: big}},
		{20 + 8 + 48, "SYN", Spec{Protocol: TCP, TCPFlags: SYN, Payload: make([]byte, 8)}},
		{20 + 8 + 28, "echo request", quote(8)},
		{20 + 8 + 36, "first fragment", Spec{Protocol: UDP, Fragment: true, Payload: make([]byte, 8)}},
		{40 + 8 + 48, "UDP, IPv6", six(Spec{Protocol: UDP})},
		{1280, "big UDP, IPv6 (RFC 4443 section 2.4(c))", six(Spec{Protocol: UDP, Payload: big})},
		{40 + 8 + 48, "echo request, IPv6", quote6(128)},
		{40 + 8 + 48, "ICMP number in IPv6 is no ICMP", six(Spec{Protocol: ICMP, ICMPType: 3})},
		{20 + 8 + 28, "from loopback to loopback", Spec{Protocol: UDP, Src: addr("127.0.0.1"), Dst: addr("127.0.0.2")}},
		// RFC 1122 section 3.2.2.
		{0, "destination unreachable", quote(3)},
		{0, "source quench", quote(4)},
		{0, "redirect", quote(5)},
		{0, "time exceeded", quote(11)},
		{0, "parameter problem", quote(12)},
		{0, "later fragment", Spec{Protocol: UDP, Fragment: true, FragOffset: 8, Payload: make([]byte, 8)}},
		{0, "to broadcast", Spec{Protocol: UDP, Src: v4a, Dst: addr("255.255.255.255")}},
		{0, "to multicast", Spec{Protocol: UDP, Src: v4a, Dst: addr("224.0.0.251")}},
		{0, "from broadcast", Spec{Protocol: UDP, Src: addr("255.255.255.255"), Dst: v4b}},
		{0, "from multicast", Spec{Protocol: UDP, Src: addr("224.0.0.251"), Dst: v4b}},
		{0, "from class E", Spec{Protocol: UDP, Src: addr("240.0.0.1"), Dst: v4b}},
		{0, "from nowhere", Spec{Protocol: UDP, Src: addr("0.0.0.0"), Dst: v4b}},
		{0, "from this network", Spec{Protocol: UDP, Src: addr("0.1.2.3"), Dst: v4b}},
		{0, "from loopback", Spec{Protocol: UDP, Src: addr("127.0.0.1"), Dst: v4b}},
		// RFC 4443 section 2.4(e).
		{0, "destination unreachable, IPv6", quote6(1)},
		{0, "packet too big", quote6(2)},
		{0, "an error not defined yet", quote6(127)},
		{0, "redirect, IPv6", quote6(137)},
		{0, "to multicast, IPv6", Spec{Protocol: UDP, Src: v6a, Dst: addr("ff02::fb")}},
		{0, "from multicast, IPv6", Spec{Protocol: UDP, Src: addr("ff02::fb"), Dst: v6b}},
		{0, "from nowhere, IPv6", Spec{Protocol: UDP, Src: addr("::"), Dst: v6b}},
		{0, "later fragment, IPv6", six(Spec{Protocol: UDP, Fragment: true, FragOffset: 8, Payload: make([]byte, 8)})},
	}
	for _, r := range rows {
		p := parsed(t, build(t, r.spec))
		from, kind, code := addr("203.0.113.1"), uint8(3), uint8(13)
		if p.Version == 6 {
			from, kind, code = addr("2001:db8:9::1"), 1, 1
		}
		got := Unreachable([]byte("keep"), p, from)[4:]
		if len(got) != r.size {
			t.Errorf("%s: %d bytes, want %d", r.name, len(got), r.size)
		}
		if len(got) == 0 {
			continue
		}
		a := parsed(t, got)
		if a.Src != from || a.Dst != p.Src || !a.HasICMP || a.ICMPType != kind || a.ICMPCode != code {
			t.Errorf("%s: %+v", r.name, *a)
		}
		checkTransportSum(t, a)
		var q Packet
		if f := a.Quoted(&q); f != OK || q.Src != p.Src || q.Dst != p.Dst || q.SrcPort != p.SrcPort || q.Len != p.Len {
			t.Errorf("%s: quotes %v %+v", r.name, f, q)
		}
	}
	p := parsed(t, build(t, Spec{Protocol: UDP}))
	for _, from := range []netip.Addr{{}, v6a, addr("0.0.0.0"), addr("224.0.0.1")} {
		if got := Unreachable(nil, p, from); len(got) != 0 {
			t.Errorf("answer from %v: %x", from, got)
		}
	}
}

func TestTooBig(t *testing.T) {
	for _, row := range []struct {
		src, dst, from string
		typ, code      uint8
	}{
		{"192.0.2.1", "198.51.100.1", "192.0.2.254", 3, 4},
		{"2001:db8::1", "2001:db8:1::1", "2001:db8::fe", 2, 0},
	} {
		b, err := Build(Spec{Src: netip.MustParseAddr(row.src), Dst: netip.MustParseAddr(row.dst), Protocol: UDP, SrcPort: 1, DstPort: 2, Payload: make([]byte, 1400)})
		if err != nil {
			t.Fatal(err)
		}
		var p, answer, quoted Packet
		if f := Parse(&p, b, len(b)); f != OK {
			t.Fatal(f)
		}
		a := TooBig(nil, &p, netip.MustParseAddr(row.from), 1338)
		if f := Parse(&answer, a, len(a)); f != OK {
			t.Fatal(f)
		}
		if answer.Dst != p.Src || answer.ICMPType != row.typ || answer.ICMPCode != row.code || be.Uint32(a[answer.Transport+4:]) != 1338 {
			t.Errorf("%s: to %v, %d/%d, second word %#x", row.src, answer.Dst, answer.ICMPType, answer.ICMPCode, a[answer.Transport+4:answer.Transport+8])
		}
		if f := answer.Quoted(&quoted); f != OK || quoted.Dst != p.Dst || quoted.DstPort != 2 {
			t.Errorf("%s: quotes %v (%v)", row.src, quoted.Dst, f)
		}
	}
}
