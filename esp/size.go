package esp

import "net/netip"

// Sizes are arithmetic: what a packet weighs when it is sealed depends on its
// length, the shape of the SA and nothing else.
//
//	ESP  outer IP (tunnel) | UDP | SPI, number, IV | payload, TFC padding | padding to 4 or the block, 2 | ICV
//	AH   outer IP (tunnel) | 12, ICV, padding to 4 or 8 | payload

// Shape is what of an SA decides how long its packets are. It needs no keys, so
// that there is one also where there is no SA yet.
type Shape struct {
	mode  Mode
	ah    bool
	v6    bool // of the sealed packets
	ip    int  // bytes of a plain IP header of that family
	udp   int  // bytes of the UDP header: 8 or 0
	own   int  // bytes of the IPsec header
	block int  // to which ESP pads
	icv   int  // bytes behind the packet
	tfc   int
}

// ShapeOf gives the shape of the SAs that c makes. Of c only Suite, Mode, the
// family of Dst, Encap, TFC and AHAlign8 matter; the rest may be missing.
func ShapeOf(c *Config) Shape { return newShape(c, c.Dst, c.Encap) }

func newShape(c *Config, dst netip.Addr, e Encap) Shape {
	s := Shape{mode: c.Mode, v6: dst.Is6(), ip: ipv4Header}
	if s.v6 {
		s.ip = ipv6Header
	}
	if c.Suite.Protocol == AH {
		s.ah, s.own = true, c.ahLen(s.v6)
		return s
	}
	s.own = espHeader + c.Suite.IV()
	s.block, s.icv, s.tfc = c.Suite.Encryption.Block, c.Suite.ICV(), c.TFC
	if e != (Encap{}) {
		s.udp = udpHeader
	}
	return s
}

// sealed is the length of a datagram of n bytes, of which front bytes stay in
// front of the IPsec header in transport mode, when it is sealed.
func (s *Shape) sealed(n, front int) int {
	payload := n - front
	if s.mode == Tunnel {
		payload = n
		n += s.ip
	}
	if s.ah {
		return n + s.own
	}
	return n + s.udp + s.own + trailer(payload, s.tfc, s.block) + s.icv
}

// SealedLen is how long a datagram of n bytes is on the wire. In transport mode
// it is taken to have a plain IP header; SealedLenOf takes any.
func (s *Shape) SealedLen(n int) int { return s.sealed(n, s.ip) }

// SealedLenOf is how long pkt is on the wire; 0 for a packet that cannot be
// sealed because of its form.
func (s *Shape) SealedLenOf(pkt []byte) int {
	if s.mode == Tunnel {
		if p, f := measure(pkt); f == OK {
			return s.sealed(p.total, 0)
		}
		return 0
	}
	p, f := find(pkt, true)
	if f != OK {
		return 0
	}
	return s.sealed(p.total, p.at)
}

// MaxInner is the longest datagram that is sealed to mtu bytes or less, with a
// plain IP header in transport mode; 0 if there is none. It is the MTU that a
// host behind the SA has to be told.
func (s *Shape) MaxInner(mtu int) int {
	// More plaintext never makes less ciphertext, so the place where it
	// gets too long can be walked to: the first guess is off by less than
	// one block and the trailer.
	n := mtu - (s.SealedLen(mtu) - mtu)
	for n > 0 && s.SealedLen(n) > mtu {
		n--
	}
	for n > 0 && s.SealedLen(n+1) <= mtu {
		n++
	}
	return max(n, 0)
}

// MSS is the largest TCP segment, in bytes of data without options, that fits
// mtu when it is sealed; v6 says which family the inner packets are of. 0 if
// there is none.
func (s *Shape) MSS(mtu int, v6 bool) int {
	headers := ipv4Header + 20
	if v6 {
		headers = ipv6Header + 20
	}
	return max(0, s.MaxInner(mtu)-headers)
}

// SealedLen is Shape.SealedLen for the addresses that the SA has now; so are
// the ones below.
func (sa *SA) SealedLen(n int) int { return sa.outer.Load().SealedLen(n) }

// SealedLenOf is Shape.SealedLenOf.
func (sa *SA) SealedLenOf(pkt []byte) int { return sa.outer.Load().SealedLenOf(pkt) }

// MaxInner is Shape.MaxInner.
func (sa *SA) MaxInner(mtu int) int { return sa.outer.Load().MaxInner(mtu) }

// MSS is Shape.MSS.
func (sa *SA) MSS(mtu int, v6 bool) int { return sa.outer.Load().MSS(mtu, v6) }
