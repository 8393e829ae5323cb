package esp

import (
	"net/netip"

	"github.com/ipfw/ipfw/packet"
)

// Open proves and opens pkt, a whole IP datagram as it came off the wire, in
// place: the clear datagram is a part of pkt, its IP header right again in
// length, protocol and checksum, and in tunnel mode with the congestion mark
// that the outer header brought. rekey says, once in the life of the SA, that
// it is time for another. On a Fault the bytes of pkt are worth nothing.
//
// ESP may come in UDP or not, whatever the SA says (RFC 7296 section 2.23).
// The caller has found the SA by its SPI; see SAD.Open.
func (sa *SA) Open(pkt []byte, now int64) (out []byte, rekey bool, f Fault) {
	p, f := find(pkt, false)
	if f != OK {
		return nil, false, sa.fault(f)
	}
	return sa.openAt(pkt, p, now)
}

func (sa *SA) openAt(pkt []byte, p place, now int64) (out []byte, rekey bool, f Fault) {
	pkt = pkt[:p.total]
	ipsec, f := p.ipsec(pkt, sa.cfg.Suite.Protocol)
	if f != OK {
		return nil, false, sa.fault(f)
	}
	var payload []byte
	var next uint8
	if sa.cfg.Suite.Protocol == AH {
		payload, next, rekey, f = sa.openAH(pkt, p, now)
	} else {
		payload, next, rekey, f = sa.OpenPayload(pkt[ipsec:], now)
	}
	if f != OK {
		return nil, rekey, f
	}
	if sa.cfg.Mode == Tunnel {
		out, f = sa.Inner(payload, next, tos(pkt))
		return out, rekey, f
	}
	// The IP header moves up to the payload; what was between them is gone.
	// payload is the end of pkt but for the trailer, so cap says where it is.
	at := cap(pkt) - cap(payload) - p.at
	out = pkt[at : at+p.at+len(payload)]
	copy(out, pkt[:p.at])
	resize(out, p, next)
	sa.MendChecksum(out, p.at, next, nil)
	return out, rekey, OK
}

// ipsec is the offset of the IPsec header of protocol proto in pkt, behind a
// UDP header if there is one.
func (p place) ipsec(pkt []byte, proto Protocol) (int, Fault) {
	switch {
	case p.next == uint8(proto):
		return p.at, OK
	case p.next != packet.UDP || proto != ESP:
		return 0, Malformed
	case p.at+udpHeader > len(pkt):
		return 0, Short
	case int(be.Uint16(pkt[p.at+4:])) != len(pkt)-p.at:
		return 0, Malformed
	}
	return p.at + udpHeader, OK
}

// OpenPayload proves and opens b, from the SPI of an ESP packet to its ICV, in
// place: what a UDP socket receives. payload is the part of b that was
// protected, and next its protocol number; in tunnel mode give both to Inner.
// rekey is as in Open.
func (sa *SA) OpenPayload(b []byte, now int64) (payload []byte, next uint8, rekey bool, f Fault) {
	c := sa.crypt
	switch {
	case sa.cfg.Suite.Protocol != ESP:
		return nil, 0, false, sa.fault(UnknownSPI)
	case len(b) < espHeader+c.iv+2+c.icv:
		return nil, 0, false, sa.fault(Short)
	}
	if n := len(b) - espHeader - c.iv - c.icv; n&(max(4, sa.cfg.Suite.Encryption.Block)-1) != 0 {
		return nil, 0, false, sa.fault(Malformed) // RFC 4303 section 2.4
	}
	seq, f := sa.begin(ESP, be.Uint32(b), be.Uint32(b[4:]), now)
	if f != OK {
		return nil, 0, false, sa.fault(f)
	}
	s := c.get()
	ok := c.open(s, b, seq)
	c.put(s)
	if !ok {
		return nil, 0, false, sa.fault(Unauthentic)
	}
	if f := sa.win.Mark(seq); f != OK {
		return nil, 0, false, sa.fault(f)
	}
	body := b[espHeader+c.iv : len(b)-c.icv]
	pad := int(body[len(body)-2])
	next = body[len(body)-1]
	n := len(body) - 2 - pad
	rekey = sa.seen(max(n, 0), sa.count.Add(1), now)
	if n < 0 || !countsUp(body[n:len(body)-2]) {
		return nil, 0, rekey, sa.fault(BadPadding)
	}
	if next == packet.NoNext {
		return nil, 0, rekey, sa.fault(Dummy)
	}
	return body[:n], next, rekey, OK
}

// begin is what comes before authentication: nothing in it changes the SA.
func (sa *SA) begin(proto Protocol, spi, low uint32, now int64) (seq uint64, f Fault) {
	switch {
	case sa.cfg.Direction != In:
		return 0, WrongWay
	case sa.cfg.Suite.Protocol != proto || sa.cfg.SPI != spi:
		return 0, UnknownSPI
	}
	if f := sa.alive(now); f != OK {
		return 0, f
	}
	return sa.win.Check(low)
}

// countsUp reports padding that goes 1, 2, 3, ...
func countsUp(b []byte) bool {
	for i, c := range b {
		if c != byte(i+1) {
			return false
		}
	}
	return true
}

// Inner reads what a tunnel mode SA carried: a datagram of the family that next
// names, without the TFC padding that may follow it. outerTOS is the type of
// service or traffic class of the outer header, whose congestion mark goes to
// the inner one (RFC 6040).
func (sa *SA) Inner(payload []byte, next, outerTOS uint8) ([]byte, Fault) {
	p, f := measure(payload)
	if f != OK || p.v6 != (next == packet.IPv6) || !p.v6 && next != packet.IPv4 {
		return nil, sa.fault(BadPayload)
	}
	payload = payload[:p.total]
	if !mergeECN(payload, outerTOS) {
		return nil, sa.fault(BadECN)
	}
	return payload, OK
}

// MendChecksum makes the TCP or UDP checksum of a datagram that came through a
// NAT fit the addresses it has here: RFC 3948 section 3.1.2, by the arithmetic
// of RFC 1624. Protocol next begins at b[at:]; of TCP data may follow in rest.
// It is for what OpenPayload has given of a transport mode SA.
func (sa *SA) MendChecksum(b []byte, at int, next uint8, rest []byte) {
	c := &sa.cfg
	if !c.OriginalSrc.IsValid() {
		if c.ThroughNAT && !(next == packet.UDP && len(b) >= at+udpHeader && be.Uint16(b[at+6:]) == 0) {
			sumAnew(b, at, next, rest)
		}
		return
	}
	switch next {
	case packet.TCP:
		at += 16
	case packet.UDP:
		at += 6
	default:
		return
	}
	if at+2 > len(b) || next == packet.UDP && be.Uint16(b[at:]) == 0 {
		return
	}
	addresses := b[12:20]
	if b[0]>>4 == 6 {
		addresses = b[8:40]
	}
	was := packet.PseudoHeader(c.OriginalSrc, c.OriginalDst, 0, 0)
	now := uint32(^packet.Checksum(addresses, 0))
	sum := uint32(^be.Uint16(b[at:])) + uint32(packet.Checksum(nil, was)) + now
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	out := ^uint16(sum)
	if out == 0 && next == packet.UDP {
		out = 0xffff
	}
	be.PutUint16(b[at:], out)
}

// OpenSums says that the TCP and UDP checksums of what the SA carried are worth
// nothing, because a NAT may have changed the addresses that they cover and
// those are not known: MendChecksum makes them anew. The integrity value has
// proved all that they could.
func (sa *SA) OpenSums() bool {
	return sa.cfg.ThroughNAT && sa.cfg.Mode == Transport && !sa.cfg.OriginalSrc.IsValid()
}

// sumAnew makes a checksum where there is no telling what it was made of.
func sumAnew(b []byte, at int, next uint8, rest []byte) {
	src, dst := ends(b)
	segment := b[at:]
	if len(rest) == 0 {
		packet.SetChecksum(segment, src, dst, next)
		return
	}
	be.PutUint16(segment[16:], 0) // a whole TCP header: an even number of bytes
	sum := ^packet.Checksum(segment, packet.PseudoHeader(src, dst, next, len(segment)+len(rest)))
	be.PutUint16(segment[16:], packet.Checksum(rest, uint32(sum)))
}

// ends reads the addresses of an IP header.
func ends(b []byte) (src, dst netip.Addr) {
	if b[0]>>4 == 6 {
		return netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	}
	return netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
}
