package esp

import (
	"crypto/subtle"

	"github.com/ipfw/ipfw/packet"
)

// ahLen is how long the SA's AH is: 12 bytes, the ICV (for AES-GMAC with its
// IV, RFC 4543 section 4) and padding to 4 bytes in IPv4, 8 in IPv6 (RFC 4302
// section 2.6).
func (c *Config) ahLen(v6 bool) int {
	n := ahHeader + c.Suite.IV() + c.Suite.ICV()
	if v6 || c.AHAlign8 {
		return (n + 7) &^ 7
	}
	return (n + 3) &^ 3
}

// sealAH fills in the AH of n bytes at pkt[at:], in a datagram that is complete
// but for it. It fails where options in front of it do not hold together: what
// of them changes on the way could not be told.
func (sa *SA) sealAH(s *scratch, pkt []byte, at, n int, next uint8, seq uint64) Fault {
	h := pkt[at : at+n]
	clear(h)
	h[0], h[1] = next, uint8(n/4-2)
	be.PutUint32(h[4:], sa.cfg.SPI)
	be.PutUint32(h[8:], uint32(seq))
	if sa.crypt.iv != 0 {
		be.PutUint64(s.nonce[4:], seq)
		be.PutUint64(h[ahHeader:], seq)
	}
	icv := sa.sumAH(s, pkt, at, n, seq, false)
	if icv == nil {
		return Malformed
	}
	copy(h[ahHeader+sa.crypt.iv:], icv)
	return OK
}

// openAH proves a datagram whose AH p has found, and gives what follows it.
func (sa *SA) openAH(pkt []byte, p place, now int64) (payload []byte, next uint8, rekey bool, f Fault) {
	h := pkt[p.at:]
	c := sa.crypt
	least := ahHeader + c.iv + c.icv
	if len(h) < least {
		return nil, 0, false, sa.fault(Short)
	}
	// The length field says where the payload starts; the algorithm says
	// how long the ICV is. Between them is padding to 4 or to 8.
	n := (int(h[1]) + 2) * 4
	if n < least || n >= least+8 || p.v6 && n%8 != 0 {
		return nil, 0, false, sa.fault(Malformed)
	}
	if n > len(h) {
		return nil, 0, false, sa.fault(Short)
	}
	seq, f := sa.begin(AH, be.Uint32(h[4:]), be.Uint32(h[8:]), now)
	if f != OK {
		return nil, 0, false, sa.fault(f)
	}
	s := c.get()
	copy(s.nonce[4:], h[ahHeader:ahHeader+c.iv])
	f = Unauthentic
	if icv := sa.sumAH(s, pkt, p.at, n, seq, false); icv == nil {
		f = Malformed
	} else if subtle.ConstantTimeCompare(icv, h[ahHeader+c.iv:least]) == 1 ||
		c.iv != 0 && subtle.ConstantTimeCompare(sa.sumAH(s, pkt, p.at, n, seq, true), h[ahHeader+c.iv:least]) == 1 {
		f = OK
	}
	c.put(s)
	if f != OK {
		return nil, 0, false, sa.fault(f)
	}
	if f := sa.win.Mark(seq); f != OK {
		return nil, 0, false, sa.fault(f)
	}
	payload, next = h[n:], h[0]
	rekey = sa.seen(len(payload), sa.count.Add(1), now)
	if next == packet.NoNext {
		return nil, 0, rekey, sa.fault(Dummy)
	}
	return payload, next, rekey, OK
}

// sumAH is the ICV of a datagram with an AH of n bytes at pkt[at:]: over the
// headers with what changes on the way set to zero, the AH with its ICV set to
// zero, and the rest (RFC 4302 section 3.3.3). It is nil where the headers do
// not hold together.
//
// With AES-GMAC an IV stands before the ICV. RFC 4543 section 4 calls it an input
// to the algorithm, and the tag its output: the tag alone is the ICV, and the IV
// stays as it is. Others take both for the ICV; noIV is for what they send. Either
// way no bit of the IV can be changed, because the nonce is made of it.
func (sa *SA) sumAH(s *scratch, pkt []byte, at, n int, seq uint64, noIV bool) []byte {
	s.buf = append(s.buf[:0], pkt[:at+n]...)
	c := sa.crypt
	icv := s.buf[at+ahHeader : at+ahHeader+c.iv+c.icv]
	if !noIV {
		icv = icv[c.iv:]
	}
	clear(icv)
	immutable := immutable6
	if pkt[0]>>4 == 4 {
		immutable = immutable4
	}
	if !immutable(s.buf[:at]) {
		return nil
	}
	return c.sum(s, s.buf, pkt[at+n:], seq)
}

// immutable4 sets the fields and options of an IPv4 header to zero that may
// change on the way: RFC 4302 section 3.3.3.1.1 and appendix A1.
//
//	type of service, flags and fragment offset, time to live, checksum
func immutable4(h []byte) bool {
	h[1] = 0
	h[6], h[7], h[8] = 0, 0, 0
	h[10], h[11] = 0, 0
	for o := h[ipv4Header:]; len(o) > 0; {
		n := 1
		switch o[0] {
		case 0: // end of options
			return true
		case 1: // no operation
		default:
			if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
				return false
			}
			n = int(o[1])
			switch o[0] {
			case 130, 133, 134, 148, 149:
				// Security, extended security, commercial security,
				// router alert, sender directed delivery: immutable.
			case 131, 137:
				// Loose and strict source route: the destination is
				// the last hop's, as the receiver will see it.
				if n >= 7 && int(o[2])+3 <= n {
					copy(h[16:20], o[n-4:n])
				}
				clear(o[:n])
			default:
				clear(o[:n])
			}
		}
		o = o[n:]
	}
	return true
}

// immutable6 does the same for an IPv6 header and the extension headers behind
// it: RFC 4302 section 3.3.3.1.2 and appendix A2.
//
//	DSCP, ECN, flow label, hop limit, options that say they change
func immutable6(h []byte) bool {
	h[0], h[1], h[2], h[3] = 6<<4, 0, 0, 0
	h[7] = 0
	next := h[6]
	for e := h[ipv6Header:]; len(e) > 0; {
		if len(e) < 8 || (int(e[1])+1)*8 > len(e) {
			return false
		}
		n := (int(e[1]) + 1) * 8
		switch next {
		case packet.HopByHop, packet.DestOptions:
			if !zeroOptions(e[2:n]) {
				return false
			}
		case packet.Routing:
			if !arrived(h, e[:n]) {
				return false
			}
		}
		next, e = e[0], e[n:]
	}
	return true
}

// zeroOptions sets the data of those options to zero whose type says that they
// may change on the way (RFC 8200 section 4.2: the third bit).
func zeroOptions(o []byte) bool {
	for len(o) > 0 {
		if o[0] == 0 { // Pad1
			o = o[1:]
			continue
		}
		if len(o) < 2 || 2+int(o[1]) > len(o) {
			return false
		}
		n := 2 + int(o[1])
		if o[0]&0x20 != 0 {
			clear(o[2:n])
		}
		o = o[n:]
	}
	return true
}

// arrived turns a routing header of type 0 or 2, and the destination, into what
// they are at the final destination (RFC 4302 section 3.3.3.1.2.3): no segments
// left, each address visited in the place of the one that was visited from it.
// Other types are not known to be predictable, and must be used up.
func arrived(h, r []byte) bool {
	left := int(r[3])
	if left == 0 {
		return true
	}
	all := (len(r) - 8) / 16
	if r[2] != 0 && r[2] != 2 || (len(r)-8)%16 != 0 || left > all {
		return false
	}
	r[3] = 0
	addresses := r[8:]
	ahead := addresses[(all-left)*16:]
	var final [16]byte
	copy(final[:], addresses[(all-1)*16:])
	copy(ahead[16:], ahead[:(left-1)*16])
	copy(ahead[:16], h[24:40])
	copy(h[24:40], final[:])
	return true
}
