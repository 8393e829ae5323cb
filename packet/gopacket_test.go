package packet

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// randomSpec makes a packet that gopacket can build and read too: no fragment
// and no AH or ESP, whose decoders there panic on short input.
func randomSpec(r *rand.Rand) Spec {
	b := func(n int) []byte {
		out := make([]byte, n)
		for i := range out {
			out[i] = byte(r.Uint32())
		}
		return out
	}
	s := Spec{
		Src: v4a, Dst: v4b, TTL: uint8(1 + r.IntN(255)), TOS: uint8(r.Uint32()),
		SrcPort: uint16(r.Uint32()), DstPort: uint16(r.Uint32()), Seq: r.Uint32(), Ack: r.Uint32(),
		Window: uint16(r.Uint32()), Tag: r.Uint32(), GREKey: r.Uint32() & 1 * r.Uint32(), GREProtocol: 0x6558,
		EchoID: uint16(r.Uint32()), EchoSeq: uint16(r.Uint32()), Payload: b(r.IntN(64)),
		TCPFlags: []uint8{SYN, SYN | ACK, ACK, FIN | ACK, PSH | ACK, RST, RST | ACK, URG | ACK, SYN | ECE | CWR}[r.IntN(9)],
		Protocol: []uint8{TCP, UDP, SCTP, ICMP, GRE, UDPLite, 99}[r.IntN(7)],
	}
	if r.IntN(2) == 0 {
		s.TCPOptions = [][]byte{nil, {2, 4, 5, 180}, {1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}, {3, 3, 7, 0}}[r.IntN(4)]
	}
	s.ICMPType = []uint8{0, 8, 3, 11, 13}[r.IntN(5)]
	if r.IntN(2) == 0 {
		s.ID = uint32(uint16(r.Uint32()))
		s.DontFragment = r.IntN(2) == 0
		s.Src, s.Dst = netip.AddrFrom4([4]byte(b(4))), netip.AddrFrom4([4]byte(b(4)))
		s.IPv4Options = [][]byte{nil, {148, 4, 0, 0}, {7, 7, 4, 0, 0, 0, 0, 0}}[r.IntN(3)]
		return s
	}
	s.Src, s.Dst = netip.AddrFrom16([16]byte(b(16))), netip.AddrFrom16([16]byte(b(16)))
	if s.Protocol == ICMP {
		s.Protocol, s.ICMPType = ICMPv6, []uint8{128, 129}[r.IntN(2)]
	}
	if r.IntN(3) == 0 {
		s.Extensions = append(s.Extensions, Extension{HopByHop, []byte{5, 2, 0, 0, 1, 0}})
	}
	if r.IntN(3) == 0 {
		s.Extensions = append(s.Extensions, Extension{DestOptions, append([]byte{0x1e, 12}, b(12)...)})
	}
	return s
}

// theirs builds the packet of a Spec with gopacket; false if it cannot.
func theirs(t *testing.T, s *Spec) ([]byte, bool) {
	var stack []gopacket.SerializableLayer
	var network gopacket.NetworkLayer
	if s.Src.Is4() {
		ip := &layers.IPv4{Version: 4, TOS: s.TOS, Id: uint16(s.ID), TTL: s.TTL, Protocol: layers.IPProtocol(s.Protocol), SrcIP: s.Src.AsSlice(), DstIP: s.Dst.AsSlice()}
		if s.DontFragment {
			ip.Flags = layers.IPv4DontFragment
		}
		if o := s.IPv4Options; o != nil {
			ip.Options = []layers.IPv4Option{{OptionType: o[0], OptionLength: o[1], OptionData: o[2:o[1]]}}
		}
		network, stack = ip, append(stack, ip)
	} else {
		if len(s.Extensions) > 0 {
			return nil, false
		}
		ip := &layers.IPv6{Version: 6, TrafficClass: s.TOS, NextHeader: layers.IPProtocol(s.Protocol), HopLimit: s.TTL, SrcIP: s.Src.AsSlice(), DstIP: s.Dst.AsSlice()}
		network, stack = ip, append(stack, ip)
	}
	switch s.Protocol {
	case TCP:
		if s.TCPOptions != nil {
			return nil, false
		}
		h := &layers.TCP{SrcPort: layers.TCPPort(s.SrcPort), DstPort: layers.TCPPort(s.DstPort), Seq: s.Seq, Ack: s.Ack, Window: s.Window}
		for i, f := range []*bool{&h.FIN, &h.SYN, &h.RST, &h.PSH, &h.ACK, &h.URG, &h.ECE, &h.CWR} {
			*f = s.TCPFlags>>i&1 != 0
		}
		h.SetNetworkLayerForChecksum(network)
		stack = append(stack, h)
	case UDP:
		h := &layers.UDP{SrcPort: layers.UDPPort(s.SrcPort), DstPort: layers.UDPPort(s.DstPort)}
		h.SetNetworkLayerForChecksum(network)
		stack = append(stack, h)
	case ICMP:
		stack = append(stack, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(s.ICMPType, s.ICMPCode), Id: s.EchoID, Seq: s.EchoSeq})
	case ICMPv6:
		h := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(s.ICMPType, s.ICMPCode)}
		h.SetNetworkLayerForChecksum(network)
		stack = append(stack, h, &layers.ICMPv6Echo{Identifier: s.EchoID, SeqNumber: s.EchoSeq})
	case GRE:
		stack = append(stack, &layers.GRE{KeyPresent: s.GREKey != 0, Key: s.GREKey, Protocol: layers.EthernetType(s.GREProtocol)})
	case 99:
	default:
		return nil, false
	}
	stack = append(stack, gopacket.Payload(s.Payload))
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, stack...); err != nil {
		t.Fatalf("gopacket: %v", err)
	}
	return buf.Bytes(), true
}

// TestBuildAgainstGopacket has both build the same packets, byte for byte.
func TestBuildAgainstGopacket(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	compared := map[string]int{}
	for range 20000 {
		s := randomSpec(r)
		ours, err := Build(s)
		if err != nil {
			t.Fatal(err)
		}
		want, ok := theirs(t, &s)
		if !ok {
			continue
		}
		compared[fmt.Sprint(ProtocolName(s.Protocol), s.Src.Is4())]++
		if !bytes.Equal(ours, want) {
			t.Fatalf("%+v\n ours %x\ntheir %x", s, ours, want)
		}
	}
	if len(compared) != 10 {
		t.Errorf("compared only %v", compared)
	}
}

// decode reads b with gopacket. It reports the fields that it found in the
// form of a Packet, whether it met an IPv6 Fragment header, and whether it read
// all without complaint.
func decode(b []byte) (p Packet, fragment6, ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	first := layers.LayerTypeIPv4
	if b[0]>>4 == 6 {
		first = layers.LayerTypeIPv6
	}
	g := gopacket.NewPacket(b, first, gopacket.DecodeOptions{NoCopy: true})
	if g.ErrorLayer() != nil || g.Metadata().Truncated {
		return p, false, false
	}
	switch ip := g.NetworkLayer().(type) {
	case *layers.IPv4:
		p.Version, p.TOS, p.TTL, p.Protocol, p.Len = 4, ip.TOS, ip.TTL, uint8(ip.Protocol), int(ip.Length)
		p.Src, _ = netip.AddrFromSlice(ip.SrcIP)
		p.Dst, _ = netip.AddrFromSlice(ip.DstIP)
		p.DontFragment, p.MoreFragment = ip.Flags&layers.IPv4DontFragment != 0, ip.Flags&layers.IPv4MoreFragments != 0
		p.FragOffset, p.FragID = int(ip.FragOffset)*8, uint32(ip.Id)
	case *layers.IPv6:
		p.Version, p.TOS, p.TTL, p.Protocol, p.Len = 6, ip.TrafficClass, ip.HopLimit, uint8(ip.NextHeader), int(ip.Length)+40
		p.Src, _ = netip.AddrFromSlice(ip.SrcIP)
		p.Dst, _ = netip.AddrFromSlice(ip.DstIP)
		p.DontFragment = true
	default:
		return p, false, false
	}
	for _, l := range g.Layers() {
		if _, echo := l.(*layers.ICMPv6Echo); !echo && (p.HasPorts || p.HasICMP || p.Protocol == GRE) {
			break // what is inside is another packet
		}
		switch l := l.(type) {
		case *layers.IPv6HopByHop:
			p.Protocol = uint8(l.NextHeader)
		case *layers.IPv6Destination:
			p.Protocol = uint8(l.NextHeader)
		case *layers.IPv6Routing:
			p.Protocol = uint8(l.NextHeader)
		case *layers.IPv6Fragment:
			p.Protocol, fragment6 = uint8(l.NextHeader), true
			p.FragOffset, p.MoreFragment, p.FragID = int(l.FragmentOffset)*8, l.MoreFragments, l.Identification
		case *layers.TCP:
			p.HasPorts, p.SrcPort, p.DstPort = true, uint16(l.SrcPort), uint16(l.DstPort)
			p.Seq, p.Ack, p.Window, p.TCPFlags = l.Seq, l.Ack, l.Window, l.Contents[13]
		case *layers.UDP:
			p.HasPorts, p.SrcPort, p.DstPort = true, uint16(l.SrcPort), uint16(l.DstPort)
		case *layers.UDPLite:
			p.HasPorts, p.SrcPort, p.DstPort = true, uint16(l.SrcPort), uint16(l.DstPort)
		case *layers.SCTP:
			p.HasPorts, p.SrcPort, p.DstPort = true, uint16(l.SrcPort), uint16(l.DstPort)
		case *layers.ICMPv4:
			p.HasICMP, p.ICMPType, p.ICMPCode = true, l.TypeCode.Type(), l.TypeCode.Code()
			if isQuery(4, p.ICMPType) {
				p.EchoID = l.Id
			}
		case *layers.ICMPv6:
			p.HasICMP, p.ICMPType, p.ICMPCode = true, l.TypeCode.Type(), l.TypeCode.Code()
		case *layers.ICMPv6Echo:
			p.EchoID = l.Identifier
		}
	}
	return p, fragment6, true
}

// TestParseAgainstGopacket reads valid packets, and valid packets with a few
// bytes changed, with both. What both read they must read alike; of the valid
// ones gopacket has to read nearly all.
func TestParseAgainstGopacket(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	both := map[bool]int{}
	for i := range 60000 {
		s := randomSpec(r)
		if i%5 == 0 && s.Protocol != GRE && len(s.Payload) > 0 {
			s.Fragment, s.FragOffset = true, 1200*r.IntN(3)
		}
		b, err := Build(s)
		if err != nil {
			t.Fatal(err)
		}
		changed := i%2 == 1
		if changed {
			for range 1 + r.IntN(3) {
				b[r.IntN(min(len(b), 80))] = byte(r.Uint32())
			}
		}
		var p Packet
		f := Parse(&p, b, len(b))
		checkInvariants(t, &p, b, f)
		if !changed && f != OK {
			t.Fatalf("%v of a valid packet\n%+v\n%x", f, s, b)
		}
		if f != OK || p.Protocol == AH || p.Protocol == ESP {
			continue
		}
		if p.Version == 4 && (isExtension(p.Protocol) || p.Protocol == ICMPv6) || p.Version == 6 && p.Protocol == ICMP {
			continue // gopacket gives these their meaning in the other family
		}
		want, fragment6, ok := decode(b)
		if !ok {
			continue
		}
		both[changed]++
		if p.Version == 6 && p.HasICMP && (p.ICMPType != 128 && p.ICMPType != 129 || p.ICMPCode != 0) {
			continue // gopacket reads an identifier in echo with code 0 only
		}
		got := p
		got.Bytes, got.Transport, got.Payload, got.Fragment, got.SourceRouted = nil, 0, 0, false, false
		if p.Fragment || fragment6 { // gopacket reads no further
			got = Packet{
				Src: p.Src, Dst: p.Dst, Len: p.Len, Version: p.Version, Protocol: p.Protocol, TOS: p.TOS, TTL: p.TTL,
				DontFragment: p.DontFragment, MoreFragment: p.MoreFragment, FragOffset: p.FragOffset, FragID: p.FragID,
			}
			if fragment6 {
				got.Protocol = want.Protocol // perhaps an extension header
			}
		}
		if a, b := describe(got), describe(want); a != b {
			t.Fatalf("%x\n ours %s\ntheir %s", p.Bytes, a, b)
		}
	}
	t.Logf("both read %d valid and %d changed packets", both[false], both[true])
	if both[false] < 10000 || both[true] < 5000 {
		t.Errorf("gopacket read only %d valid and %d changed packets", both[false], both[true])
	}
}
