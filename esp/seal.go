package esp

import (
	"slices"

	"github.com/ipfw/ipfw/packet"
)

// Batch is a run of sequence numbers of an outbound SA, taken at once. Each
// number seals one packet at the most. A Batch belongs to one goroutine; many
// may have batches of one SA.
type Batch struct {
	// Rekey is set when a packet crossed the soft lifetime; it is set by one
	// packet in the life of an SA.
	Rekey bool
	// OpenUDPSum leaves the checksum of UDP in IPv6 at zero, for whoever sends
	// the UDP payload by a socket, which fills it in.
	OpenUDPSum bool

	sa        *SA
	s         *scratch
	now       int64
	next, end uint64
}

// Reserve takes n sequence numbers, 1 or more. The caller must call Done.
// Numbers that are not used are lost, which only leaves a gap.
func (sa *SA) Reserve(n int, now int64) (Batch, Fault) {
	if sa.cfg.Direction != Out || n < 1 {
		return Batch{}, sa.fault(WrongWay)
	}
	if f := sa.alive(now); f != OK {
		return Batch{}, sa.fault(f)
	}
	first, f := sa.reserve(uint64(n))
	if f != OK {
		return Batch{}, sa.fault(f)
	}
	return Batch{sa: sa, s: sa.crypt.get(), now: now, next: first, end: first + uint64(n)}, OK
}

// Done gives the Batch's working memory back.
func (b *Batch) Done() {
	if b.s != nil {
		b.sa.crypt.put(b.s)
	}
	*b = Batch{Rekey: b.Rekey}
}

// Seal protects pkt, a whole IP datagram with its checksums filled in, and
// appends the IP datagram that goes on the wire to dst. They must not overlap.
// On a Fault dst comes back as it was. rekey says, once in the life of the SA,
// that it is time for another.
func (sa *SA) Seal(dst, pkt []byte, now int64) (out []byte, rekey bool, f Fault) {
	b, f := sa.Reserve(1, now)
	if f != OK {
		return dst, false, f
	}
	out, f = b.Seal(dst, pkt)
	rekey = b.Rekey
	b.Done()
	return out, rekey, f
}

// Seal is SA.Seal with the batch's next number.
func (b *Batch) Seal(dst, pkt []byte) ([]byte, Fault) {
	if b.sa == nil {
		return dst, Exhausted
	}
	head, tail := b.sa.Room()
	grown := slices.Grow(dst, head+len(pkt)+tail)
	buf := grown[len(dst) : len(dst)+head+len(pkt)+tail]
	copy(buf[head:], pkt)
	sealed, _, f := b.seal(buf, head, len(pkt))
	if f != OK {
		return dst, f
	}
	// AH on IPv4 may need less in front than Room says.
	copy(buf, sealed)
	return grown[:len(dst)+len(sealed)], OK
}

// SealInPlace protects the datagram in buf[off:off+n] with the batch's next
// number, without copying its data. Room says how many bytes buf must have
// free before and behind it. The sealed datagram is a part of buf; in UDP
// encapsulation sealed[payload:] is what a UDP socket has to send, otherwise
// payload is where the IPsec header starts. After a Fault the bytes in buf may
// have changed.
func (b *Batch) SealInPlace(buf []byte, off, n int) (sealed []byte, payload int, f Fault) {
	if b.sa == nil {
		return nil, 0, Exhausted
	}
	if off < 0 || n < 0 || off+n > len(buf) {
		return nil, 0, b.sa.fault(NoRoom)
	}
	return b.seal(buf, off, n)
}

// SealDummy appends a dummy packet as large as one that carries n bytes, which
// the far end throws away (RFC 4303 section 2.6): traffic to hide traffic in.
// ESP in tunnel mode only.
func (b *Batch) SealDummy(dst []byte, n int) ([]byte, Fault) {
	if b.sa == nil {
		return dst, Exhausted
	}
	o := b.sa.outer.Load()
	if b.sa.cfg.Mode != Tunnel || b.sa.cfg.Suite.Protocol != ESP {
		return dst, b.sa.fault(Malformed)
	}
	n = max(n, ipv6Header)
	// Zeros in the form of an IPv4 header, after which the outer one is made.
	p := place{v6: o.v6, total: n, next: packet.NoNext}
	head, tail := b.sa.Room()
	grown := slices.Grow(dst, head+n+tail)
	buf := grown[len(dst) : len(dst)+head+n+tail]
	clear(buf[head : head+n])
	buf[head] = 4<<4 | 5
	sealed, _, f := b.put(buf, head, p)
	if f != OK {
		return dst, f
	}
	return grown[:len(dst)+len(sealed)], OK
}

// Room says how many bytes Seal may need in front of a datagram and behind it.
func (sa *SA) Room() (head, tail int) {
	c := &sa.cfg
	o := sa.outer.Load()
	if c.Mode == Tunnel {
		head = o.ip
	}
	head += o.udp
	if c.Suite.Protocol == AH {
		return head + c.ahLen(true), 0 // IPv6 aligns to no less than IPv4
	}
	head += espHeader + sa.crypt.iv
	return head, sa.cfg.TFC + 2 + max(4, c.Suite.Encryption.Block) - 1 + sa.crypt.icv
}

func (b *Batch) seal(buf []byte, off, n int) ([]byte, int, Fault) {
	pkt := buf[off : off+n]
	var p place
	var f Fault
	if b.sa.cfg.Mode == Tunnel {
		if p, f = measure(pkt); f == OK {
			p.at = 0
			p.next = packet.IPv4
			if p.v6 {
				p.next = packet.IPv6
			}
		}
	} else {
		p, f = find(pkt, true)
	}
	if f == OK && p.total != n {
		f = Malformed
	}
	if f != OK {
		return nil, 0, b.sa.fault(f)
	}
	return b.put(buf, off, p)
}

// put builds the sealed datagram around the p.total bytes at buf[off:], of which
// the first p.at are headers that stay in front:
//
//	start            ipsec                  off+p.at       end of data           end
//	| IP | extensions | UDP | ESP | IV      | payload       | padding | pad length, next header | ICV |
//	| IP | extensions | AH | ICV            | payload       |
func (b *Batch) put(buf []byte, off int, p place) ([]byte, int, Fault) {
	sa := b.sa
	c := &sa.cfg
	o := sa.outer.Load()
	wireV6, front := p.v6, p.at
	if c.Mode == Tunnel {
		wireV6, front = o.v6, o.ip
	}
	own := espHeader + sa.crypt.iv // bytes of the IPsec header
	dataEnd := off + p.total
	end := dataEnd
	if c.Suite.Protocol == AH {
		own = c.ahLen(wireV6)
	} else {
		end += trailer(p.total-p.at, c.TFC, c.Suite.Encryption.Block) + sa.crypt.icv
	}
	ipsec := off + p.at - own
	start := ipsec - o.udp - front
	limit := 65535
	if wireV6 {
		limit += ipv6Header
	}
	switch {
	case c.Mode == Transport && p.v6 != o.v6:
		return nil, 0, sa.fault(Malformed)
	case b.next == b.end:
		return nil, 0, sa.fault(Exhausted)
	case start < 0 || end > len(buf):
		return nil, 0, sa.fault(NoRoom)
	case end-start > limit:
		return nil, 0, sa.fault(TooBig)
	}
	if f := sa.alive(b.now); f != OK {
		return nil, 0, sa.fault(f)
	}
	seq := b.next
	b.next++
	if sa.seen(p.total, seq, b.now) {
		b.Rekey = true
	}

	sealed := buf[start:end]
	proto := uint8(c.Suite.Protocol)
	if o.udp != 0 {
		proto = packet.UDP
	}
	if c.Mode == Tunnel {
		o.put(sealed, buf[off:dataEnd], &c.Outer, seq)
	} else {
		copy(sealed, buf[off:off+p.at])
		resize(sealed, p, proto)
	}
	if !wireV6 && c.Suite.Protocol == AH {
		identify(sealed, seq)
	}
	if c.Suite.Protocol == AH {
		if f := sa.sealAH(b.s, sealed, ipsec-start, own, p.next, seq); f != OK {
			return nil, 0, sa.fault(f)
		}
		return sealed, ipsec - start, OK
	}
	if o.udp != 0 {
		o.putUDP(buf[ipsec-udpHeader : end])
	}
	pad := end - sa.crypt.icv - 2 - dataEnd
	if extra := c.TFC - (p.total - p.at); extra > 0 {
		clear(buf[dataEnd : dataEnd+extra])
		dataEnd += extra
		pad -= extra
	}
	for i := range pad {
		buf[dataEnd+i] = byte(i + 1)
	}
	buf[dataEnd+pad], buf[dataEnd+pad+1] = byte(pad), p.next
	be.PutUint32(buf[ipsec:], c.SPI)
	be.PutUint32(buf[ipsec+4:], uint32(seq))
	sa.crypt.seal(b.s, buf[ipsec:end], seq)
	if o.udp != 0 && wireV6 && !b.OpenUDPSum {
		sumUDP(sealed, buf[ipsec-udpHeader:end])
	}
	return sealed, ipsec - start, OK
}

// identify gives an IPv4 header an identification if it has none. A raw socket
// would (raw(7)), when AH has covered the field by its ICV already.
func identify(b []byte, seq uint64) {
	if be.Uint16(b[4:]) != 0 {
		return
	}
	be.PutUint16(b[4:], uint16(seq%0xffff)+1)
	be.PutUint16(b[10:], 0)
	be.PutUint16(b[10:], packet.Checksum(b[:int(b[0]&0xf)*4], 0))
}

// trailer is how many bytes follow a payload of n bytes in ESP, without the
// ICV: TFC padding, padding, pad length and next header (RFC 4303 section 2.4).
// block is a power of two.
func trailer(n, tfc, block int) int {
	extra := max(0, tfc-n)
	align := max(4, block)
	return extra + -(n+extra+2)&(align-1) + 2
}
