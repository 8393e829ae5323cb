package packet

import (
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
)

var (
	v4a = netip.MustParseAddr("192.0.2.1")
	v4b = netip.MustParseAddr("198.51.100.2")
	v6a = netip.MustParseAddr("2001:db8::1")
	v6b = netip.MustParseAddr("2001:db8::2")
)

// build makes a packet between the test addresses, IPv4 unless the spec says
// otherwise, and then writes bytes over it at offsets.
func build(t testing.TB, s Spec, at ...int) []byte {
	t.Helper()
	if !s.Src.IsValid() {
		s.Src, s.Dst = v4a, v4b
	}
	b, err := Build(s)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(at); i += 2 {
		b[at[i]] = byte(at[i+1])
	}
	return b
}

// six makes the spec one of IPv6.
func six(s Spec, x ...Extension) Spec {
	s.Src, s.Dst, s.Extensions = v6a, v6b, x
	return s
}

func raw(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestFaults(t *testing.T) {
	var (
		syn   = Spec{Protocol: TCP, TCPFlags: SYN, SrcPort: 1000, DstPort: 80}
		dgram = Spec{Protocol: UDP, SrcPort: 1000, DstPort: 53, Payload: []byte("0123456789abcdef")}
		lite  = Spec{Protocol: UDPLite, Payload: []byte("01234567")}
		ping  = Spec{Protocol: ICMP, ICMPType: 8}
		ping6 = six(Spec{Protocol: ICMPv6, ICMPType: 128})
		esp   = Spec{Protocol: ESP, SPI: 256, Payload: make([]byte, 24)}
		ah    = Spec{Protocol: AH, SPI: 256, ICV: make([]byte, 12), Next: TCP}
		gre   = Spec{Protocol: GRE, GREKey: 1}
		mh    = Spec{Protocol: Mobility, Payload: []byte{NoNext, 0, 0, 0, 0, 0, 0, 0}}
		hop   = Extension{Header: HopByHop}
		dst   = Extension{Header: DestOptions}
		frag  = Extension{Header: FragmentHdr}
		route = func(kind, left byte) Extension {
			return Extension{Routing, append([]byte{kind, left}, make([]byte, 20)...)}
		}
		first = func(s Spec) Spec { s.Fragment = true; return s }
		later = func(s Spec, offset int) Spec {
			return Spec{Src: s.Src, Dst: s.Dst, Extensions: s.Extensions, Protocol: s.Protocol, Fragment: true, FragOffset: offset, Payload: make([]byte, 8)}
		}
		last  = func(s Spec) Spec { s.LastFragment = true; return s }
		flags = func(f uint8) Spec { s := syn; s.TCPFlags = f; return s }
		wrap  = func(proto uint8, payload ...byte) Spec { return Spec{Protocol: proto, Raw: true, Payload: payload} }
		wrap6 = func(proto uint8, payload ...byte) Spec {
			return six(Spec{Protocol: proto, Raw: true, Payload: payload})
		}
	)
	cut := func(b []byte, n int) []byte { return b[:n] }
	more := func(b []byte, n int) []byte { return append(b, make([]byte, n)...) }
	rows := []struct {
		want Fault
		name string
		b    []byte
		wire int // 0: len(b)
	}{
		// Version.
		{Truncated, "no bytes", nil, 0},
		{BadVersion, "version 0", make([]byte, 60), 0},
		{BadVersion, "version 5", build(t, syn, 0, 0x55), 0},
		{BadVersion, "version 4 header with version 15", build(t, syn, 0, 0xf5), 0},

		// IPv4 header (RFC 791 section 3.1).
		{OK, "SYN", build(t, syn), 0},
		{OK, "SYN padded by Ethernet", more(build(t, syn), 6), 0},
		{OK, "payload cut by the capture", cut(build(t, dgram), 28), 44},
		{Truncated, "one byte", []byte{0x45}, 0},
		{Truncated, "19 bytes", cut(build(t, syn), 19), 40},
		{Truncated, "options cut", cut(build(t, Spec{Protocol: 99, IPv4Options: make([]byte, 8)}), 24), 28},
		{BadHeaderLength, "IHL 4", build(t, syn, 0, 0x44), 0},
		{BadHeaderLength, "IHL 0", build(t, syn, 0, 0x40), 0},
		{BadLength, "total length 0", build(t, syn, 3, 0), 0},
		{BadLength, "total length below the header", build(t, syn, 3, 19), 0},
		{BadLength, "total length below IHL", build(t, Spec{Protocol: 99, IPv4Options: make([]byte, 8)}, 3, 24), 0},
		{BadLength, "total length above the wire", build(t, syn, 3, 41), 0},
		{BadLength, "total length above the wire, cut", cut(build(t, syn, 3, 42), 40), 41},
		{OK, "options: nop, end, garbage after", build(t, Spec{Protocol: 99, IPv4Options: []byte{1, 0, 7, 0}}), 0},
		{OK, "options: router alert", build(t, Spec{Protocol: 99, IPv4Options: []byte{148, 4, 0, 0}}), 0},
		{BadHeaderLength, "options: length 0", build(t, Spec{Protocol: 99, IPv4Options: []byte{148, 0, 0, 0}}), 0},
		{BadHeaderLength, "options: length 1", build(t, Spec{Protocol: 99, IPv4Options: []byte{148, 1, 0, 0}}), 0},
		{BadHeaderLength, "options: length past the header", build(t, Spec{Protocol: 99, IPv4Options: []byte{148, 5, 0, 0}}), 0},
		{BadHeaderLength, "options: no length", build(t, Spec{Protocol: 99, IPv4Options: []byte{1, 1, 1, 148}}), 0},
		{BadHeaderLength, "options: source route without pointer", build(t, Spec{Protocol: 99, IPv4Options: []byte{131, 2, 0, 0}}), 0},
		{OK, "options: empty source route", build(t, Spec{Protocol: 99, IPv4Options: []byte{131, 3, 4, 0}}), 0},
		{BadHeaderLength, "options: source route pointer 3", build(t, Spec{Protocol: 99, IPv4Options: []byte{137, 3, 3, 0}}), 0},

		// IPv6 header (RFC 8200 section 3).
		{OK, "SYN", build(t, six(syn)), 0},
		{OK, "padded by Ethernet", more(build(t, six(syn)), 6), 0},
		{OK, "no payload, no next header", build(t, wrap6(NoNext)), 0},
		{OK, "no next header, and bytes", build(t, wrap6(NoNext, 1, 2, 3)), 0},
		{Truncated, "39 bytes", cut(build(t, six(syn)), 39), 60},
		{BadLength, "payload length above the wire", build(t, six(syn), 5, 21), 0},
		{Truncated, "payload length 0 and TCP", build(t, six(syn), 5, 0), 0},
		{BadLength, "payload length 0 and hop-by-hop", build(t, six(syn, hop), 5, 0), 0},
		{BadLength, "jumbo payload option", build(t, six(syn, Extension{HopByHop, []byte{0xc2, 4, 0, 1, 0, 0}})), 0},
		{BadVersion, "IPv4-mapped source", build(t, six(syn), 8, 0, 9, 0, 10, 0, 11, 0, 18, 0xff, 19, 0xff), 0},
		{BadVersion, "IPv4-mapped destination", build(t, six(syn), 24, 0, 25, 0, 26, 0, 27, 0, 34, 0xff, 35, 0xff), 0},

		// IPv6 extension headers (RFC 8200 section 4).
		{OK, "hop-by-hop", build(t, six(syn, hop)), 0},
		{OK, "all in the order of RFC 8200 section 4.1", build(t, six(first(syn), hop, dst, route(4, 0), frag, dst)), 0},
		{OK, "destination options before routing, type 4", build(t, six(syn, dst, route(4, 1))), 0},
		{OK, "eight headers", build(t, six(syn, hop, dst, dst, dst, dst, dst, dst, dst)), 0},
		{BadChain, "nine headers", build(t, six(syn, hop, dst, dst, dst, dst, dst, dst, dst, dst)), 0},
		{BadChain, "hop-by-hop second", build(t, six(syn, dst, hop)), 0},
		{BadChain, "hop-by-hop twice", build(t, six(syn, hop, hop)), 0},
		{BadChain, "longer than the minimum MTU", build(t, six(syn, Extension{DestOptions, make([]byte, 1246)})), 0},
		{OK, "just the minimum MTU", build(t, six(wrap(99), Extension{DestOptions, make([]byte, 1238)})), 0},
		{Truncated, "hop-by-hop cut", cut(build(t, six(syn, hop)), 47), 68},
		{Truncated, "hop-by-hop cut by its own length", build(t, wrap6(HopByHop, TCP, 1, 0, 0, 0, 0, 0, 0)), 0},
		{Truncated, "hop-by-hop without bytes for itself", build(t, wrap6(DestOptions, TCP, 0)), 0},
		{BadChain, "option past its header", build(t, six(syn, Extension{DestOptions, []byte{5, 5, 0, 0, 0, 0}})), 0},
		{BadChain, "option without length", build(t, six(syn, Extension{DestOptions, []byte{0, 0, 0, 0, 0, 5}})), 0},
		{OK, "routing type 0, used up", build(t, six(syn, route(0, 0))), 0},
		{BadChain, "routing type 0, segments left (RFC 5095)", build(t, six(syn, route(0, 1))), 0},
		{OK, "mobility", build(t, six(mh)), 0},
		{OK, "mobility after destination options", build(t, six(mh, dst)), 0},
		{BadChain, "mobility with something in it (RFC 6275)", build(t, wrap6(Mobility, TCP, 0, 0, 0, 0, 0, 0, 0)), 0},
		{BadHeaderLength, "mobility past the end", build(t, wrap6(Mobility, NoNext, 1, 0, 0, 0, 0, 0, 0)), 0},
		{Truncated, "mobility cut", cut(build(t, wrap6(Mobility, []byte{NoNext, 1, 15: 0}...)), 50), 56},
		{Truncated, "mobility of 7 bytes", build(t, wrap6(Mobility, NoNext, 0, 0, 0, 0, 0, 0)), 0},
		{OK, "the numbers of IPv6 extension headers mean nothing in IPv4", build(t, wrap(HopByHop, 1, 2, 3)), 0},

		// IPv4 fragments (RFC 791 section 3.2, RFC 1858, RFC 3128).
		{OK, "first fragment of a SYN", build(t, first(syn)), 0},
		{OK, "first fragment, cut", cut(build(t, first(dgram)), 28), 44},
		{OK, "last fragment of 8 bytes", build(t, last(later(syn, 24))), 0},
		{OK, "last fragment, odd length", build(t, last(later(dgram, 8)), 3, 27), 0},
		{OK, "UDP at offset 8", build(t, last(later(dgram, 8))), 0},
		{BadFragment, "middle fragment, odd length", build(t, later(dgram, 8), 3, 27), 0},
		{BadFragment, "tiny: TCP in 8 bytes", build(t, first(syn), 3, 28), 0},
		{BadFragment, "tiny: TCP in 16 bytes", build(t, first(syn), 3, 36), 0},
		{BadFragment, "tiny: TCP options in the next", build(t, first(Spec{Protocol: TCP, TCPFlags: SYN, TCPOptions: make([]byte, 8)}), 3, 44), 0},
		{BadFragment, "tiny: SCTP in 8 bytes", build(t, first(Spec{Protocol: SCTP}), 3, 28), 0},
		{BadFragment, "tiny: AH in 16 bytes", build(t, first(ah), 3, 36), 0},
		{BadFragment, "no data, first", build(t, first(dgram), 3, 20), 0},
		{BadFragment, "no data, last", build(t, last(later(dgram, 8)), 3, 20), 0},
		{BadFragment, "TCP at offset 8", build(t, last(later(syn, 8))), 0},
		{BadFragment, "TCP at offset 16", build(t, last(later(syn, 16))), 0},
		{BadFragment, "SCTP at offset 8", build(t, last(later(Spec{Protocol: SCTP}, 8))), 0},
		{BadFragment, "AH at offset 8", build(t, last(later(ah, 8))), 0},
		{OK, "ends at 65535", build(t, last(Spec{Protocol: UDP, Fragment: true, FragOffset: 65504, Payload: make([]byte, 11)})), 0},
		{BadFragment, "ends past 65535", build(t, last(Spec{Protocol: UDP, Fragment: true, FragOffset: 65504, Payload: make([]byte, 12)})), 0},
		{BadFragment, "ping of death", build(t, last(Spec{Protocol: ICMP, Fragment: true, FragOffset: 65528, Payload: make([]byte, 1000)})), 0},
		{Truncated, "first fragment that is all header, cut by the capture", cut(build(t, first(Spec{Protocol: TCP, TCPFlags: SYN, TCPOptions: make([]byte, 4)})), 40), 44},
		{Truncated, "first fragment with its header cut by the capture", cut(build(t, first(syn)), 36), 44},

		// IPv6 fragments (RFC 8200 section 4.5, RFC 7112, RFC 6946, RFC 6980).
		{OK, "first fragment", build(t, six(first(syn))), 0},
		{OK, "last fragment", build(t, six(last(later(syn, 24)))), 0},
		{OK, "atomic", build(t, six(last(first(syn)))), 0},
		{OK, "atomic, odd length", build(t, six(last(first(Spec{Protocol: UDP, Payload: []byte("abc")})))), 0},
		{OK, "later fragment that names destination options", build(t, six(later(Spec{Protocol: UDP}, 8), dst)), 0},
		{BadFragment, "TCP at offset 8", build(t, six(last(later(syn, 8)))), 0},
		{BadFragment, "middle fragment, odd length", build(t, six(later(dgram, 8)), 5, 15), 0},
		{BadFragment, "tiny: TCP in 16 bytes", build(t, six(first(syn)), 5, 24), 0},
		{BadFragment, "chain goes on in the next fragment (RFC 7112)", build(t, first(wrap6(DestOptions, TCP, 1, 1, 4, 0, 0, 0, 0))), 0},
		{BadFragment, "header in the next fragment (RFC 7112)", build(t, first(wrap6(DestOptions, TCP, 0, 1, 4, 0, 0, 0, 0))), 0},
		{BadFragment, "no data", build(t, six(last(later(dgram, 8))), 5, 8), 0},
		{OK, "ends at 65535", build(t, six(last(Spec{Protocol: UDP, Fragment: true, FragOffset: 65520, Payload: make([]byte, 15)}))), 0},
		{BadFragment, "ends past 65535", build(t, six(last(later(dgram, 65528)))), 0},
		{BadChain, "Fragment header twice", build(t, last(first(wrap6(FragmentHdr, UDP, 0, 0, 0, 0, 0, 0, 0)))), 0},
		{BadChain, "later fragment that names a Fragment header", build(t, six(later(Spec{Protocol: FragmentHdr}, 8))), 0},
		{BadChain, "hop-by-hop in a fragment", build(t, first(wrap6(HopByHop, UDP, 0, 1, 4, 0, 0, 0, 0))), 0},
		{BadChain, "hop-by-hop in a later fragment", build(t, six(later(Spec{Protocol: HopByHop}, 8))), 0},
		{BadFragment, "neighbour solicitation in a fragment", build(t, six(first(Spec{Protocol: ICMPv6, ICMPType: 135, Payload: make([]byte, 16)}))), 0},
		{BadFragment, "neighbour advertisement in an atomic fragment", build(t, six(last(first(Spec{Protocol: ICMPv6, ICMPType: 136, Payload: make([]byte, 16)})))), 0},
		{BadFragment, "redirect in a fragment", build(t, six(first(Spec{Protocol: ICMPv6, ICMPType: 137, Payload: make([]byte, 16)}))), 0},
		{BadFragment, "certification path solicitation in a fragment", build(t, six(first(Spec{Protocol: ICMPv6, ICMPType: 148, Payload: make([]byte, 16)}))), 0},
		{OK, "listener report in a fragment", build(t, six(first(Spec{Protocol: ICMPv6, ICMPType: 132, Payload: make([]byte, 16)}))), 0},
		{OK, "router renumbering in a fragment", build(t, six(first(Spec{Protocol: ICMPv6, ICMPType: 138, Payload: make([]byte, 16)}))), 0},
		{OK, "echo in a fragment", build(t, first(ping6)), 0},
		{Truncated, "atomic, ICMPv6 without a byte", build(t, last(first(wrap6(ICMPv6)))), 0},
		{Truncated, "Fragment header cut", cut(build(t, six(first(syn))), 44), 72},

		// TCP (RFC 9293 section 3.1).
		{Truncated, "19 bytes", build(t, wrap(TCP, make([]byte, 19)...)), 0},
		{Truncated, "cut by the capture", cut(build(t, syn), 39), 40},
		{Truncated, "options cut by the capture", cut(build(t, Spec{Protocol: TCP, TCPFlags: SYN, TCPOptions: make([]byte, 8)}), 40), 48},
		{BadHeaderLength, "data offset 4", build(t, syn, 32, 0x40), 0},
		{BadHeaderLength, "data offset 0", build(t, syn, 32, 0), 0},
		{BadHeaderLength, "data offset past the end", build(t, syn, 32, 0x60), 0},
		{OK, "ACK", build(t, flags(ACK)), 0},
		{OK, "SYN ECE CWR (RFC 3168)", build(t, flags(SYN|ECE|CWR)), 0},
		{OK, "SYN ACK", build(t, flags(SYN|ACK)), 0},
		{OK, "PSH ACK", build(t, flags(PSH|ACK)), 0},
		{OK, "URG ACK", build(t, flags(URG|ACK)), 0},
		{OK, "FIN PSH URG ACK", build(t, flags(FIN|PSH|URG|ACK)), 0},
		{OK, "RST", build(t, flags(RST)), 0},
		{OK, "RST ACK", build(t, flags(RST|ACK)), 0},
		{BadTransport, "null", build(t, flags(0)), 0},
		{BadTransport, "null with ECN", build(t, flags(ECE|CWR)), 0},
		{BadTransport, "FIN", build(t, flags(FIN)), 0},
		{BadTransport, "PSH", build(t, flags(PSH)), 0},
		{BadTransport, "URG", build(t, flags(URG)), 0},
		{BadTransport, "Xmas", build(t, flags(FIN|PSH|URG)), 0},
		{BadTransport, "SYN FIN", build(t, flags(SYN|FIN)), 0},
		{BadTransport, "SYN FIN ACK", build(t, flags(SYN|FIN|ACK)), 0},
		{BadTransport, "SYN RST", build(t, flags(SYN|RST)), 0},
		{BadTransport, "SYN RST ACK", build(t, flags(SYN|RST|ACK)), 0},
		{BadTransport, "FIN RST ACK", build(t, flags(FIN|RST|ACK)), 0},
		{BadTransport, "all", build(t, flags(0xff)), 0},
		{BadTransport, "SYN FIN in a first fragment", build(t, first(flags(SYN|FIN))), 0},

		// UDP (RFC 768) and UDP-Lite (RFC 3828 section 3.1).
		{OK, "UDP", build(t, dgram), 0},
		{OK, "UDP options (RFC 9868)", build(t, dgram, 25, 10), 0},
		{Truncated, "UDP of 7 bytes", build(t, wrap(UDP, make([]byte, 7)...)), 0},
		{BadLength, "UDP length 0", build(t, dgram, 25, 0), 0},
		{BadLength, "UDP length 0 in IPv6 (RFC 2675)", build(t, six(dgram), 45, 0), 0},
		{BadLength, "UDP length 7", build(t, dgram, 25, 7), 0},
		{BadLength, "UDP length above IP's", build(t, dgram, 25, 25), 0},
		{OK, "UDP length above IP's, first fragment", build(t, first(dgram), 25, 80), 0},
		{BadLength, "UDP length 7, first fragment", build(t, first(dgram), 25, 7), 0},
		{OK, "UDP-Lite, coverage 0", build(t, lite), 0},
		{OK, "UDP-Lite, coverage 8", build(t, lite, 25, 8), 0},
		{OK, "UDP-Lite, coverage all", build(t, lite, 25, 16), 0},
		{BadLength, "UDP-Lite, coverage 7", build(t, lite, 25, 7), 0},
		{BadLength, "UDP-Lite, coverage too much", build(t, lite, 25, 17), 0},
		{Truncated, "UDP-Lite of 7 bytes", build(t, wrap(UDPLite, make([]byte, 7)...)), 0},

		// SCTP, ICMP, ESP, AH, GRE.
		{OK, "SCTP", build(t, Spec{Protocol: SCTP}), 0},
		{Truncated, "SCTP of 11 bytes", build(t, wrap(SCTP, make([]byte, 11)...)), 0},
		{OK, "echo", build(t, ping), 0},
		{Truncated, "ICMP of 7 bytes", build(t, wrap(ICMP, make([]byte, 7)...)), 0},
		{OK, "echo, IPv6", build(t, ping6), 0},
		{Truncated, "ICMPv6 of 3 bytes", build(t, wrap6(ICMPv6, 152, 0, 0)), 0},
		{OK, "multicast router solicitation of 4 bytes (RFC 4286)", build(t, wrap6(ICMPv6, 152, 0, 0, 0)), 0},
		{Truncated, "the same, cut by the capture", cut(build(t, wrap6(ICMPv6, []byte{152, 7: 0}...)), 44), 48},
		{Truncated, "ICMPv6 echo of 4 bytes", build(t, wrap6(ICMPv6, 128, 0, 0, 0)), 0},
		{Truncated, "ICMPv6 error of 4 bytes", build(t, wrap6(ICMPv6, 1, 0, 0, 0)), 0},
		{OK, "ICMP number in IPv6", build(t, wrap6(ICMP, 1)), 0},
		{OK, "ICMPv6 number in IPv4", build(t, wrap(ICMPv6, 1)), 0},
		{OK, "ESP", build(t, esp), 0},
		{OK, "ESP, IPv6", build(t, six(esp, dst)), 0},
		{Truncated, "ESP of 3 bytes", build(t, wrap(ESP, 0, 0, 1)), 0},
		{Truncated, "ESP of 7 bytes", build(t, wrap(ESP, make([]byte, 7)...)), 0},
		{BadTransport, "ESP, SPI 0", build(t, Spec{Protocol: ESP}), 0},
		{OK, "AH", build(t, ah), 0},
		{OK, "AH, IPv6", build(t, six(ah, hop, dst)), 0},
		{Truncated, "AH of 11 bytes", build(t, wrap(AH, make([]byte, 11)...)), 0},
		{BadHeaderLength, "AH of 24 zero bytes", build(t, wrap(AH, make([]byte, 24)...)), 0},
		{BadHeaderLength, "AH past the end", build(t, ah, 21, 5), 0},
		{Truncated, "AH cut by the capture", cut(build(t, ah), 40), 44},
		{BadTransport, "AH, SPI 0", build(t, Spec{Protocol: AH, ICV: make([]byte, 12)}), 0},
		{OK, "GRE", build(t, gre), 0},
		{Truncated, "GRE of 3 bytes", build(t, wrap(GRE, 0, 0, 8)), 0},
		{Truncated, "GRE without its key", build(t, wrap(GRE, 0x20, 0, 8, 0, 0, 0, 0)), 0},
		{OK, "unknown protocol, no bytes", build(t, wrap(99)), 0},

		// Real packets, from captures.
		{OK, "DNS query over IPv4", raw(t, "4500003c 1c464000 4011a26d c0a80168 c0a80101 d5a50035 0028b34c 00010100 00010000 00000000 07 6578616d706c65 03636f6d 00 0001 0001 0000000000"), 0},
		{OK, "MLDv2 report with router alert", raw(t, "60000000 0024 00 01 fe800000000000000000000000000001 ff020000000000000000000000000016 3a00 0502 0000 0100 8f00 0000 0000 0001 04000000 ff0200000000000000000001ff000001"), 0},
	}
	for _, r := range rows {
		var p Packet
		wire := r.wire
		if wire == 0 {
			wire = len(r.b)
		}
		if got := Parse(&p, r.b, wire); got != r.want {
			t.Errorf("%s: got %v, want %v\n%x", r.name, got, r.want, r.b)
		}
		checkInvariants(t, &p, r.b, r.want)
	}
}

// checkInvariants holds what is true of every Packet, whatever the bytes.
func checkInvariants(t testing.TB, p *Packet, b []byte, f Fault) {
	t.Helper()
	bad := func(what string) { t.Helper(); t.Errorf("%s: %v\n%+v\n%x", what, f, *p, b) }
	if len(p.Bytes) > len(b) {
		bad("Bytes grew")
	}
	if p.Transport > p.Payload || p.Payload > len(p.Bytes) {
		bad("want Transport <= Payload <= len(Bytes)")
	}
	if p.Src.Is4In6() || p.Dst.Is4In6() {
		bad("an IPv4-mapped address came through")
	}
	if f != OK {
		return
	}
	if p.Version != 4 && p.Version != 6 || p.Src.Is4() != (p.Version == 4) || p.Dst.Is4() != (p.Version == 4) || !p.Src.IsValid() || !p.Dst.IsValid() {
		bad("version and addresses")
	}
	if len(p.Bytes) > p.Len || p.Len < ipv4Header {
		bad("Len")
	}
	if p.FragOffset != 0 && (!p.Fragment || p.HasPorts || p.HasICMP || p.HasSPI || p.Payload != p.Transport) {
		bad("a later fragment has no header")
	}
	if !p.Fragment && p.MoreFragment {
		bad("M and no fragment")
	}
	if p.HasICMP && p.HasPorts || p.HasSPI && (p.HasPorts || p.HasICMP) {
		bad("two upper layers")
	}
	if p.FragOffset == 0 && p.Protocol == TCP && (!p.HasPorts || p.Payload < p.Transport+20) {
		bad("TCP without ports")
	}
}

// TestFields checks every field that Parse fills in.
func TestFields(t *testing.T) {
	rows := []struct {
		name string
		spec Spec
		want Packet // less Bytes, Src, Dst and Version, which the test adds
	}{
		{"tcp", Spec{Protocol: TCP, SrcPort: 1, DstPort: 0xfffe, TCPFlags: SYN | ACK, Seq: 0xfffffffe, Ack: 7, Window: 513, TCPOptions: []byte{2, 4, 5, 180}, TTL: 9, TOS: 0xb9, ID: 77, DontFragment: true, Payload: []byte("xy")},
			Packet{Len: 46, Transport: 20, Payload: 44, Protocol: TCP, TOS: 0xb9, TTL: 9, DontFragment: true, FragID: 77, HasPorts: true, SrcPort: 1, DstPort: 0xfffe, TCPFlags: SYN | ACK, Seq: 0xfffffffe, Ack: 7, Window: 513}},
		{"tcp6", six(Spec{Protocol: TCP, SrcPort: 1, DstPort: 0xfffe, TCPFlags: ACK, TTL: 9, TOS: 0xb9, ID: 77}),
			Packet{Len: 60, Transport: 40, Payload: 60, Protocol: TCP, TOS: 0xb9, TTL: 9, DontFragment: true, HasPorts: true, SrcPort: 1, DstPort: 0xfffe, TCPFlags: ACK}},
		{"udp", Spec{Protocol: UDP, SrcPort: 53, DstPort: 54, IPv4Options: []byte{148, 4, 0, 0}},
			Packet{Len: 32, Transport: 24, Payload: 32, Protocol: UDP, TTL: 64, HasPorts: true, SrcPort: 53, DstPort: 54}},
		{"source route", Spec{Protocol: UDP, IPv4Options: []byte{1, 131, 7, 4, 192, 0, 2, 9}},
			Packet{Len: 36, Transport: 28, Payload: 36, Protocol: UDP, TTL: 64, SourceRouted: true, HasPorts: true}},
		{"source route, pointer at its last byte", Spec{Protocol: UDP, IPv4Options: []byte{131, 7, 7, 192, 0, 2, 9, 0}},
			Packet{Len: 36, Transport: 28, Payload: 36, Protocol: UDP, TTL: 64, SourceRouted: true, HasPorts: true}},
		{"source route used up", Spec{Protocol: UDP, IPv4Options: []byte{1, 137, 7, 8, 192, 0, 2, 9}},
			Packet{Len: 36, Transport: 28, Payload: 36, Protocol: UDP, TTL: 64, HasPorts: true}},
		{"segments left", six(Spec{Protocol: UDP}, Extension{Routing, []byte{4, 1, 0, 0, 0, 0}}),
			Packet{Len: 56, Transport: 48, Payload: 56, Protocol: UDP, TTL: 64, DontFragment: true, SourceRouted: true, HasPorts: true}},
		{"sctp", Spec{Protocol: SCTP, SrcPort: 5, DstPort: 6, Payload: []byte{1}},
			Packet{Len: 33, Transport: 20, Payload: 32, Protocol: SCTP, TTL: 64, HasPorts: true, SrcPort: 5, DstPort: 6}},
		{"echo", Spec{Protocol: ICMP, ICMPType: 8, EchoID: 0x1234, EchoSeq: 9},
			Packet{Len: 28, Transport: 20, Payload: 28, Protocol: ICMP, TTL: 64, HasICMP: true, ICMPType: 8, EchoID: 0x1234}},
		{"unreachable has no id", Spec{Protocol: ICMP, ICMPType: 3, ICMPCode: 13, EchoID: 0x1234},
			Packet{Len: 28, Transport: 20, Payload: 28, Protocol: ICMP, TTL: 64, HasICMP: true, ICMPType: 3, ICMPCode: 13}},
		{"echo6", six(Spec{Protocol: ICMPv6, ICMPType: 129, EchoID: 0x1234}, Extension{Header: HopByHop}),
			Packet{Len: 56, Transport: 48, Payload: 56, Protocol: ICMPv6, TTL: 64, DontFragment: true, HasICMP: true, ICMPType: 129, EchoID: 0x1234}},
		{"extended echo request", six(Spec{Protocol: ICMPv6, ICMPType: 160, EchoID: 0x1234}),
			Packet{Len: 48, Transport: 40, Payload: 48, Protocol: ICMPv6, TTL: 64, DontFragment: true, HasICMP: true, ICMPType: 160, EchoID: 0x1234}},
		{"extended echo reply", six(Spec{Protocol: ICMPv6, ICMPType: 161, EchoID: 0x1234}),
			Packet{Len: 48, Transport: 40, Payload: 48, Protocol: ICMPv6, TTL: 64, DontFragment: true, HasICMP: true, ICMPType: 161, EchoID: 0x1234}},
		{"packet too big has no id", six(Spec{Protocol: ICMPv6, ICMPType: 2, EchoSeq: 1280, EchoID: 1}),
			Packet{Len: 48, Transport: 40, Payload: 48, Protocol: ICMPv6, TTL: 64, DontFragment: true, HasICMP: true, ICMPType: 2}},
		{"icmp in IPv6 is nothing", six(Spec{Protocol: ICMP, ICMPType: 8, EchoID: 1}),
			Packet{Len: 48, Transport: 40, Payload: 40, Protocol: ICMP, TTL: 64, DontFragment: true}},
		{"esp", Spec{Protocol: ESP, SPI: 0x1001, SPISeq: 3, Payload: make([]byte, 24)},
			Packet{Len: 52, Transport: 20, Payload: 28, Protocol: ESP, TTL: 64, HasSPI: true, SPI: 0x1001, SPISeq: 3}},
		{"ah", Spec{Protocol: AH, SPI: 0x1001, SPISeq: 3, ICV: make([]byte, 12), Next: UDP, Payload: make([]byte, 8)},
			Packet{Len: 52, Transport: 20, Payload: 44, Protocol: AH, TTL: 64, HasSPI: true, SPI: 0x1001, SPISeq: 3}},
		{"ah6", six(Spec{Protocol: AH, SPI: 0x1001, SPISeq: 3, ICV: make([]byte, 16), Next: UDP}, Extension{Header: DestOptions}),
			Packet{Len: 80, Transport: 48, Payload: 80, Protocol: AH, TTL: 64, DontFragment: true, HasSPI: true, SPI: 0x1001, SPISeq: 3}},
		{"gre", Spec{Protocol: GRE, GREKey: 5}, Packet{Len: 28, Transport: 20, Payload: 28, Protocol: GRE, TTL: 64}},
		{"gre, checksum, key and sequence number", Spec{Protocol: GRE, Raw: true, Payload: []byte{0: 0xb0, 19: 0}}, Packet{Len: 40, Transport: 20, Payload: 36, Protocol: GRE, TTL: 64}},
		{"pptp, sequence number and acknowledgment", Spec{Protocol: GRE, Raw: true, Payload: []byte{0: 0x30, 1: 0x81, 19: 0}}, Packet{Len: 40, Transport: 20, Payload: 36, Protocol: GRE, TTL: 64}},
		{"gre with routing", Spec{Protocol: GRE, Raw: true, Payload: []byte{0: 0xf0, 19: 0}}, Packet{Len: 40, Transport: 20, Payload: 24, Protocol: GRE, TTL: 64}},
		{"ip in ip", Spec{Protocol: IPv4, Payload: []byte{1}}, Packet{Len: 21, Transport: 20, Payload: 20, Protocol: IPv4, TTL: 64}},
		{"first fragment", Spec{Protocol: UDP, SrcPort: 7, ID: 0xabcd, Fragment: true, Payload: make([]byte, 8)},
			Packet{Len: 36, Transport: 20, Payload: 28, Protocol: UDP, TTL: 64, Fragment: true, MoreFragment: true, FragID: 0xabcd, HasPorts: true, SrcPort: 7}},
		{"last fragment", Spec{Protocol: TCP, ID: 0xabcd, Fragment: true, LastFragment: true, FragOffset: 1480, Payload: make([]byte, 5)},
			Packet{Len: 25, Transport: 20, Payload: 20, Protocol: TCP, TTL: 64, Fragment: true, FragOffset: 1480, FragID: 0xabcd}},
		{"middle fragment, IPv6", six(Spec{Protocol: TCP, ID: 0xabcdef01, Fragment: true, FragOffset: 1480, Payload: make([]byte, 16)}, Extension{Header: HopByHop}),
			Packet{Len: 72, Transport: 56, Payload: 56, Protocol: TCP, TTL: 64, DontFragment: true, Fragment: true, MoreFragment: true, FragOffset: 1480, FragID: 0xabcdef01}},
		{"atomic fragment", six(Spec{Protocol: UDP, ID: 5, Fragment: true, LastFragment: true}),
			Packet{Len: 56, Transport: 48, Payload: 56, Protocol: UDP, TTL: 64, DontFragment: true, FragID: 5, HasPorts: true}},
	}
	for _, r := range rows {
		b := build(t, r.spec)
		p := Packet{Len: 1, SPI: 1, EchoID: 1, MoreFragment: true, SourceRouted: true} // left by another packet
		if f := Parse(&p, b, len(b)); f != OK {
			t.Errorf("%s: %v", r.name, f)
			continue
		}
		checkInvariants(t, &p, b, OK)
		r.want.Version, r.want.Src, r.want.Dst = 4, v4a, v4b
		if r.spec.Src.IsValid() {
			r.want.Version, r.want.Src, r.want.Dst = 6, v6a, v6b
		}
		if string(p.Bytes) != string(b) {
			t.Errorf("%s: Bytes", r.name)
		}
		p.Bytes = nil
		if got, want := describe(p), describe(r.want); got != want {
			t.Errorf("%s:\n got %s\nwant %s", r.name, got, want)
		}
	}
}
