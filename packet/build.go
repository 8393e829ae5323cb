package packet

import (
	"errors"
	"fmt"
	"net/netip"
)

// Spec describes a packet to build: for tests, for dry runs, for answers. The
// fields that its protocol does not use are ignored. Lengths and checksums
// come out right by themselves.
type Spec struct {
	Src, Dst netip.Addr // both of one family
	Protocol uint8      // upper-layer protocol; of one that is not named below Payload is all there is
	// Raw says that Payload holds the upper-layer header too, as it is to
	// be, checksum and all.
	Raw bool
	TTL uint8 // 0 means 64
	TOS uint8

	ID           uint32 // IPv4 identification (the low 16 bits), identification in the IPv6 Fragment header
	DontFragment bool   // IPv4 only
	// IPv4Options are raw options, up to 40 bytes; padded to a multiple of 4.
	IPv4Options []byte
	// Extensions are IPv6 extension headers, in order.
	Extensions []Extension

	// Fragment makes a fragment: the first when FragOffset is 0, a later one
	// otherwise, of which Payload is all the data. M is set unless
	// LastFragment; the data are then padded to a multiple of 8. Fragment
	// and LastFragment at offset 0 make an atomic fragment in IPv6 (RFC
	// 6946), a whole datagram in IPv4.
	Fragment, LastFragment bool
	FragOffset             int // in bytes, a multiple of 8

	SrcPort, DstPort uint16 // TCP, UDP, UDP-Lite, SCTP

	TCPFlags   uint8
	Seq, Ack   uint32
	Window     uint16
	TCPOptions []byte // raw, up to 40 bytes; padded to a multiple of 4

	Coverage uint16 // UDP-Lite: checksum coverage, 0 for all
	Tag      uint32 // SCTP: verification tag

	ICMPType, ICMPCode uint8
	// EchoID and EchoSeq are the two halves of the second word of an ICMP
	// or ICMPv6 header, whatever the type makes of it.
	EchoID, EchoSeq uint16

	SPI, SPISeq uint32 // ESP, AH
	ICV         []byte // AH; padded to a multiple of 4 in IPv4, as RFC 4302 section 2.6 asks in IPv6
	Next        uint8  // AH: protocol of Payload

	GREProtocol uint16 // an EtherType; 0 means that of IPv4
	GREKey      uint32 // 0: no key field

	Payload []byte
}

// Extension is one IPv6 extension header.
type Extension struct {
	// Header is HopByHop, Routing or DestOptions; or FragmentHdr, without
	// Data, to say where a fragment's header stands: if nobody says, it
	// stands after the last Hop-by-Hop or Routing header.
	Header uint8
	// Data is what follows the Next Header and Hdr Ext Len fields. It is
	// padded to a multiple of 8 with them, as an option (PadN) after
	// options, with zeros in a Routing header.
	Data []byte
}

// Build makes the packet that s describes.
func Build(s Spec) ([]byte, error) { return Append(nil, &s) }

// Append appends the packet that s describes to dst. It does not allocate when
// dst has room. On an error, dst comes back as it was.
func Append(dst []byte, s *Spec) ([]byte, error) {
	src, to := s.Src.Unmap(), s.Dst.Unmap()
	switch {
	case !src.IsValid() || !to.IsValid():
		return dst, errors.New("packet: cannot build without a source and a destination address")
	case src.Is4() != to.Is4():
		return dst, errors.New("packet: cannot build from an IPv4 to an IPv6 address or back")
	case s.FragOffset != 0 && !s.Fragment:
		return dst, errors.New("packet: a fragment offset needs Fragment")
	case s.FragOffset < 0 || s.FragOffset > 0x1fff*8 || s.FragOffset%8 != 0:
		return dst, fmt.Errorf("packet: fragment offset %d is not a multiple of 8 up to %d", s.FragOffset, 0x1fff*8)
	}
	start := len(dst)
	out, err := s.appendNetwork(dst, src, to)
	if err != nil {
		return dst, err
	}
	upper := len(out)
	if s.Raw || s.FragOffset != 0 {
		out = append(out, s.Payload...)
	} else if out, err = s.appendTransport(out, src.Is4()); err != nil {
		return dst, err
	}
	SetChecksum(out[upper:], src, to, s.checksummed(src.Is4()))
	if s.Fragment && !s.LastFragment {
		out = pad(out, upper, 8)
	}
	n := len(out) - start
	if src.Is4() {
		if n > 65535 {
			return dst, fmt.Errorf("packet: %d bytes are more than an IPv4 packet holds (65535)", n)
		}
		be.PutUint16(out[start+2:], uint16(n))
		header := out[start : start+int(out[start]&0x0f)*4]
		be.PutUint16(header[10:], Checksum(header, 0))
		return out, nil
	}
	if n -= ipv6Header; n > 65535 {
		return dst, fmt.Errorf("packet: %d bytes are more than an IPv6 payload holds (65535)", n)
	}
	be.PutUint16(out[start+4:], uint16(n))
	return out, nil
}

// checksummed is the protocol whose checksum is filled in; NoNext, which
// has none, for raw bytes, a later fragment and an ICMP of the other family.
func (s *Spec) checksummed(v4 bool) uint8 {
	if s.Raw || s.FragOffset != 0 || s.Protocol == ICMP && !v4 || s.Protocol == ICMPv6 && v4 {
		return NoNext
	}
	return s.Protocol
}

// appendNetwork appends the IP header and the extension headers.
func (s *Spec) appendNetwork(b []byte, src, to netip.Addr) ([]byte, error) {
	ttl := s.TTL
	if ttl == 0 {
		ttl = 64
	}
	start := len(b)
	if src.Is4() {
		if len(s.IPv4Options) > 40 {
			return b, fmt.Errorf("packet: %d bytes of IPv4 options are more than 40", len(s.IPv4Options))
		}
		if len(s.Extensions) > 0 {
			return b, errors.New("packet: IPv4 has no extension headers")
		}
		b = zeros(b, ipv4Header)
		b = append(b, s.IPv4Options...)
		b = pad(b, start, 4)
		h := b[start:]
		h[0] = 4<<4 | uint8(len(h)/4)
		h[1] = s.TOS
		be.PutUint16(h[4:], uint16(s.ID))
		be.PutUint16(h[6:], s.flags4())
		h[8], h[9] = ttl, s.Protocol
		a, z := src.As4(), to.As4()
		copy(h[12:], a[:])
		copy(h[16:], z[:])
		return b, nil
	}
	b = zeros(b, ipv6Header)
	h := b[start:]
	be.PutUint32(h, 6<<28|uint32(s.TOS)<<20)
	h[7] = ttl
	a, z := src.As16(), to.As16()
	copy(h[8:], a[:])
	copy(h[24:], z[:])
	return s.appendExtensions(b, start+6)
}

// flags4 is the word of the IPv4 header with DF, M and the fragment offset.
func (s *Spec) flags4() uint16 {
	word := uint16(s.FragOffset / 8)
	if s.DontFragment {
		word |= 0x4000
	}
	if s.Fragment && !s.LastFragment {
		word |= 0x2000
	}
	return word
}

// appendExtensions appends the chain; next is where in b the Next Header field
// stands that names its first header.
func (s *Spec) appendExtensions(b []byte, next int) ([]byte, error) {
	place := -1 // before which extension the Fragment header stands
	if s.Fragment {
		place = 0
		for i, e := range s.Extensions {
			if e.Header == FragmentHdr {
				place = i
				break
			}
			if e.Header == HopByHop || e.Header == Routing {
				place = i + 1
			}
		}
	}
	for i := 0; ; i++ {
		if i == place {
			b[next] = FragmentHdr
			next = len(b)
			b = zeros(b, fragmentHeader)
			word := uint16(s.FragOffset)
			if !s.LastFragment {
				word |= 1
			}
			be.PutUint16(b[next+2:], word)
			be.PutUint32(b[next+4:], s.ID)
		}
		if i == len(s.Extensions) {
			break
		}
		e := &s.Extensions[i]
		if e.Header == FragmentHdr {
			continue // stands there already, or there is no fragment to be
		}
		if i >= place && s.FragOffset != 0 {
			// It went with the first fragment; each fragment names it
			// (RFC 8200 section 4.5).
			b[next] = e.Header
			return b, nil
		}
		if len(e.Data) > 2046 {
			return b, fmt.Errorf("packet: %d bytes are more than an extension header holds (2046)", len(e.Data))
		}
		b[next] = e.Header
		next = len(b)
		b = append(b, 0, 0)
		b = append(b, e.Data...)
		end := len(b)
		b = pad(b, next, 8)
		if n := len(b) - end; n > 1 && e.Header != Routing {
			b[end], b[end+1] = 1, uint8(n-2) // PadN, RFC 8200 section 4.2
		}
		b[next+1] = uint8((len(b)-next)/8 - 1)
	}
	b[next] = s.Protocol
	return b, nil
}

// appendTransport appends the upper-layer header, without its checksum, and
// the payload.
func (s *Spec) appendTransport(b []byte, v4 bool) ([]byte, error) {
	start := len(b)
	switch s.Protocol {
	case TCP:
		if len(s.TCPOptions) > 40 {
			return b, fmt.Errorf("packet: %d bytes of TCP options are more than 40", len(s.TCPOptions))
		}
		b = zeros(b, tcpHeader)
		b = append(b, s.TCPOptions...)
		b = pad(b, start, 4)
		h := b[start:]
		s.putPorts(h)
		be.PutUint32(h[4:], s.Seq)
		be.PutUint32(h[8:], s.Ack)
		h[12] = uint8(len(h)/4) << 4
		h[13] = s.TCPFlags
		be.PutUint16(h[14:], s.Window)
	case UDP, UDPLite:
		b = zeros(b, udpHeader)
		s.putPorts(b[start:])
		length := s.Coverage
		if s.Protocol == UDP {
			if len(s.Payload) > 65535-udpHeader {
				return b, fmt.Errorf("packet: %d bytes are more than UDP holds (65527)", len(s.Payload))
			}
			length = uint16(udpHeader + len(s.Payload))
		}
		be.PutUint16(b[start+4:], length)
	case SCTP:
		b = zeros(b, sctpHeader)
		s.putPorts(b[start:])
		be.PutUint32(b[start+4:], s.Tag)
	case ICMP, ICMPv6:
		b = append(b, s.ICMPType, s.ICMPCode, 0, 0)
		b = be.AppendUint16(b, s.EchoID)
		b = be.AppendUint16(b, s.EchoSeq)
	case ESP:
		b = be.AppendUint32(b, s.SPI)
		b = be.AppendUint32(b, s.SPISeq)
	case AH:
		b = append(b, s.Next, 0, 0, 0)
		b = be.AppendUint32(b, s.SPI)
		b = be.AppendUint32(b, s.SPISeq)
		b = append(b, s.ICV...)
		multiple := 8
		if v4 {
			multiple = 4
		}
		b = pad(b, start, multiple)
		words := (len(b)-start)/4 - 2
		if words > 255 {
			return b, fmt.Errorf("packet: %d bytes of ICV are more than AH holds", len(s.ICV))
		}
		b[start+1] = uint8(words)
	case GRE:
		var flags uint16
		if s.GREKey != 0 {
			flags = 0x2000
		}
		kind := s.GREProtocol
		if kind == 0 {
			kind = 0x0800
		}
		b = be.AppendUint16(b, flags)
		b = be.AppendUint16(b, kind)
		if s.GREKey != 0 {
			b = be.AppendUint32(b, s.GREKey)
		}
	}
	return append(b, s.Payload...), nil
}

func (s *Spec) putPorts(h []byte) {
	be.PutUint16(h, s.SrcPort)
	be.PutUint16(h[2:], s.DstPort)
}

// zeros appends n zero bytes.
func zeros(b []byte, n int) []byte { return append(b, make([]byte, n)...) }

// pad appends zero bytes until what stands in b from start on is a multiple
// of n bytes.
func pad(b []byte, start, n int) []byte {
	for (len(b)-start)%n != 0 {
		b = append(b, 0)
	}
	return b
}
