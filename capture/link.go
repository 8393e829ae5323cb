package capture

import (
	"encoding/binary"
	"errors"
)

// Link types, LINKTYPE_ numbers of tcpdump.org, whose headers are read here;
// what else gopacket knows is left to it (other.go).
const (
	linkNull     = 0
	linkEthernet = 1
	linkPPP      = 9
	linkRaw12    = 12 // raw IP, as some systems number it
	linkRaw14    = 14
	linkPPPHDLC  = 50
	linkPPPoE    = 51
	linkRaw      = 101
	linkCHDLC    = 104
	linkLoop     = 108
	linkSLL      = 113
	linkPPPD     = 166
	linkIPv4     = 228
	linkIPv6     = 229
	linkNFLOG    = 239
	linkSLL2     = 276
)

// EtherTypes (IANA, IEEE 802 numbers).
const (
	etherIPv4  = 0x0800
	etherVLAN  = 0x8100
	etherIPv6  = 0x86dd
	etherMPLS  = 0x8847
	etherMPLSu = 0x8848
	etherPPPoE = 0x8864
	etherQinQ  = 0x88a8
	etherQinQ2 = 0x9100
)

// Why a frame gives no datagram.
var (
	// ErrNotIP: it carries something else, such as ARP.
	ErrNotIP = errors.New("not an IP packet")
	// ErrHeaderCut: the capture holds less than the link header.
	ErrHeaderCut = errors.New("cut short inside the link header")
	// ErrLinkType: a kind of link nobody here can read.
	ErrLinkType = errors.New("unknown link type")
)

// Datagram is the IP packet inside a frame.
type Datagram struct {
	Bytes []byte // as much of it as was captured, from the IP header on
	Len   int    // its length on the wire, without the padding of the link
	Way   Way
}

// Datagram finds the IP packet inside the frame. It allocates nothing for
// the common kinds of link.
func (f *Frame) Datagram() (Datagram, error) {
	b, way, err := f.payload()
	if err != nil {
		return Datagram{}, err
	}
	d := Datagram{Bytes: b, Len: len(b) + f.Len - len(f.Data), Way: f.Way}
	if d.Way == Unknown {
		d.Way = way
	}
	// Short Ethernet frames are padded, and some captures hold the frame
	// check sequence: what the IP header does not count is not the packet.
	if n := ipLen(b); n > 0 && n < d.Len {
		d.Len = n
		d.Bytes = b[:min(n, len(b))]
	}
	return d, nil
}

// ipLen is the length that an IP header states, or 0 when it cannot be told.
func ipLen(b []byte) int {
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		return int(binary.BigEndian.Uint16(b[2:]))
	case len(b) >= 40 && b[0]>>4 == 6:
		if n := int(binary.BigEndian.Uint16(b[4:])); n > 0 {
			return 40 + n
		}
	}
	return 0
}

func (f *Frame) payload() ([]byte, Way, error) {
	b := f.Data
	switch f.Link {
	case linkEthernet:
		if len(b) < 14 {
			return nil, Unknown, ErrHeaderCut
		}
		b, err := etherPayload(binary.BigEndian.Uint16(b[12:]), b[14:])
		return b, Unknown, err
	case linkRaw, linkRaw12, linkRaw14, linkIPv4, linkIPv6:
		b, err := rawIP(b)
		return b, Unknown, err
	case linkSLL:
		if len(b) < 16 {
			return nil, Unknown, ErrHeaderCut
		}
		way := sllWay(binary.BigEndian.Uint16(b))
		b, err := etherPayload(binary.BigEndian.Uint16(b[14:]), b[16:])
		return b, way, err
	case linkSLL2:
		if len(b) < 20 {
			return nil, Unknown, ErrHeaderCut
		}
		way := sllWay(uint16(b[10]))
		b, err := etherPayload(binary.BigEndian.Uint16(b), b[20:])
		return b, way, err
	case linkNull, linkLoop:
		// An address family in the byte order of whoever captured: its
		// numbers differ between systems, the IP version does not.
		if len(b) < 4 {
			return nil, Unknown, ErrHeaderCut
		}
		b, err := rawIP(b[4:])
		return b, Unknown, err
	case linkPPP, linkPPPHDLC:
		b, err := pppPayload(b)
		return b, Unknown, err
	case linkPPPD:
		if len(b) < 1 {
			return nil, Unknown, ErrHeaderCut
		}
		way := Received
		if b[0] == 1 {
			way = Sent
		}
		b, err := pppProtocol(b, 2)
		return b, way, err
	case linkPPPoE:
		b, err := pppoePayload(b)
		return b, Unknown, err
	case linkCHDLC:
		if len(b) < 4 {
			return nil, Unknown, ErrHeaderCut
		}
		b, err := etherPayload(binary.BigEndian.Uint16(b[2:]), b[4:])
		return b, Unknown, err
	case linkNFLOG:
		b, err := nflogPayload(b)
		return b, Unknown, err
	}
	b, err := otherPayload(f.Link, b)
	return b, Unknown, err
}

// sllWay reads the packet type of Linux "cooked" captures.
func sllWay(t uint16) Way {
	switch t {
	case 0, 1, 2: // to us, broadcast, multicast
		return Received
	case 3: // to someone else
		return Passing
	case 4: // from us
		return Sent
	}
	return Unknown
}

// etherPayload follows an EtherType through VLAN tags, MPLS labels, PPPoE and
// LLC to the IP header.
func etherPayload(typ uint16, b []byte) ([]byte, error) {
	for {
		switch typ {
		case etherIPv4, etherIPv6:
			return rawIP(b)
		case etherVLAN, etherQinQ, etherQinQ2:
			if len(b) < 4 {
				return nil, ErrHeaderCut
			}
			typ, b = binary.BigEndian.Uint16(b[2:]), b[4:]
		case etherMPLS, etherMPLSu:
			if len(b) < 4 {
				return nil, ErrHeaderCut
			}
			bottom := b[2]&1 != 0 // RFC 3032 section 2.1
			b = b[4:]
			if bottom {
				return rawIP(b)
			}
		case etherPPPoE:
			return pppoePayload(b)
		default:
			// A length instead of a type: LLC, with SNAP in front of an
			// EtherType (RFC 1042).
			if typ <= 1500 && len(b) >= 8 && b[0] == 0xaa && b[1] == 0xaa && b[2] == 3 {
				typ, b = binary.BigEndian.Uint16(b[6:]), b[8:]
				if typ > 1500 {
					continue
				}
			}
			return nil, ErrNotIP
		}
	}
}

// rawIP says whether b starts like an IP header.
func rawIP(b []byte) ([]byte, error) {
	if len(b) == 0 {
		return nil, ErrHeaderCut
	}
	if v := b[0] >> 4; v != 4 && v != 6 {
		return nil, ErrNotIP
	}
	return b, nil
}

// pppoePayload reads the session header of RFC 2516 section 4.
func pppoePayload(b []byte) ([]byte, error) {
	if len(b) < 6 {
		return nil, ErrHeaderCut
	}
	return pppProtocol(b[6:], 0)
}

// pppPayload reads PPP with or without the address and control bytes that
// HDLC framing adds (RFC 1662 section 3.1).
func pppPayload(b []byte) ([]byte, error) {
	if len(b) >= 2 && b[0] == 0xff && b[1] == 3 {
		return pppProtocol(b, 2)
	}
	return pppProtocol(b, 0)
}

// pppProtocol reads the protocol field at an offset (RFC 1661 section 2): two
// bytes, or one when it is compressed, which its lowest bit shows.
func pppProtocol(b []byte, at int) ([]byte, error) {
	if len(b) < at+2 {
		return nil, ErrHeaderCut
	}
	b = b[at:]
	protocol, n := uint16(b[0]), 1
	if b[0]&1 == 0 {
		protocol, n = binary.BigEndian.Uint16(b), 2
	}
	if protocol != 0x0021 && protocol != 0x0057 { // RFC 1332, RFC 5072
		return nil, ErrNotIP
	}
	return rawIP(b[n:])
}

// nflogPayload finds the packet among the attributes of an NFLOG frame: its
// header is family, version and resource, then length, type and value in the
// byte order of the host, taken here as little-endian unless that cannot be.
func nflogPayload(b []byte) ([]byte, error) {
	const payload = 9 // NFULA_PAYLOAD
	if len(b) < 4 {
		return nil, ErrHeaderCut
	}
	for b = b[4:]; len(b) >= 4; {
		n, typ := int(binary.LittleEndian.Uint16(b)), binary.LittleEndian.Uint16(b[2:])
		if n < 4 {
			return nil, ErrNotIP
		}
		if typ == payload {
			return rawIP(b[4:min(n, len(b))])
		}
		b = b[min((n+3)&^3, len(b)):]
	}
	return nil, ErrHeaderCut
}
