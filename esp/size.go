package esp

// Sizes are arithmetic: what a packet weighs when it is sealed depends on its
// length, the SA and nothing else.
//
//	ESP  outer IP (tunnel) | UDP | SPI, number, IV | payload, TFC padding | padding to 4 or the block, 2 | ICV
//	AH   outer IP (tunnel) | 12, ICV, padding to 4 or 8 | payload

// sealed is the length of a datagram of n bytes, of which front bytes stay in
// front of the IPsec header in transport mode, when it is sealed.
func (sa *SA) sealed(n, front int) int {
	c := &sa.cfg
	o := sa.outer.Load()
	wireV6 := o.v6
	if c.Mode == Tunnel {
		front = 0
		n += o.ip
	}
	if c.Suite.Protocol == AH {
		return n + sa.ahLen(wireV6)
	}
	payload := n - front
	if c.Mode == Tunnel {
		payload -= o.ip
	}
	return n + o.udp + espHeader + sa.crypt.iv + trailer(payload, c.TFC, c.Suite.Encryption.Block) + sa.crypt.icv
}

// SealedLen is how long a datagram of n bytes is on the wire. In transport mode
// it is taken to have a plain IP header; SealedLenOf takes any.
func (sa *SA) SealedLen(n int) int { return sa.sealed(n, sa.outer.Load().ip) }

// SealedLenOf is how long pkt is on the wire; 0 for a packet that cannot be
// sealed because of its form.
func (sa *SA) SealedLenOf(pkt []byte) int {
	if sa.cfg.Mode == Tunnel {
		if p, f := measure(pkt); f == OK {
			return sa.sealed(p.total, 0)
		}
		return 0
	}
	p, f := find(pkt, true)
	if f != OK {
		return 0
	}
	return sa.sealed(p.total, p.at)
}

// MaxInner is the longest datagram that is sealed to mtu bytes or less, with a
// plain IP header in transport mode; 0 if there is none. It is the MTU that a
// host behind the SA has to be told.
func (sa *SA) MaxInner(mtu int) int {
	// More plaintext never makes less ciphertext, so the place where it
	// gets too long can be walked to: the first guess is off by less than
	// one block and the trailer.
	n := mtu - (sa.SealedLen(mtu) - mtu)
	for n > 0 && sa.SealedLen(n) > mtu {
		n--
	}
	for n > 0 && sa.SealedLen(n+1) <= mtu {
		n++
	}
	return max(n, 0)
}

// MSS is the largest TCP segment, in bytes of data without options, that fits
// mtu when it is sealed; v6 says which family the inner packets are of. 0 if
// there is none.
func (sa *SA) MSS(mtu int, v6 bool) int {
	headers := ipv4Header + 20
	if v6 {
		headers = ipv6Header + 20
	}
	return max(0, sa.MaxInner(mtu)-headers)
}
