package engine

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
)

// Unsealed is what came out of an SA and is not judged yet. A receiver keeps
// one and hands it to Unseal again and again.
type Unsealed struct {
	// Input is the clear packet as Process is to judge it. Of a TCP packet
	// Packet.Bytes ends with the TCP header; of any other it is whole.
	Input Input
	// Data is what follows Packet.Bytes. It lies in the packet that was opened.
	Data []byte
	// SumOpen says that the TCP checksum is still to be filled in. What it was
	// made of is not known behind a NAT, and the integrity value has proved
	// more (RFC 3948 section 3.1.2).
	SumOpen bool

	room []byte // of a packet whose IP header is gone
	last origin // of the packet in Input, if it is TCP in transport mode
}

// Whole gives the packet in one piece that is the caller's own, and complete.
func (u *Unsealed) Whole() []byte {
	p := &u.Input.Packet
	b := append(bytes.Clone(p.Bytes), u.Data...)
	if u.SumOpen {
		packet.SetChecksum(b[p.Transport:], p.Src, p.Dst, packet.TCP)
	}
	return b
}

// origin is all that decides how a TCP packet of a transport mode SA is read
// and whether it may come out of it: the rest differs from packet to packet of
// one flow without a consequence for either.
type origin struct {
	sa       *esp.SA
	now      int64
	inIf     string
	tracked  bool
	src, dst netip.AddrPort // of the outer header
	version  uint8
	tos, ttl uint8
	df       bool
	ports    [4]byte // of TCP
	offset   byte    // of its data
}

func originOf(in *Input, sa *esp.SA, tcp []byte) origin {
	p := &in.Packet
	return origin{
		sa: sa, now: in.Now, inIf: in.InIf, tracked: in.Tracked,
		src: netip.AddrPortFrom(p.Src, p.SrcPort), dst: netip.AddrPortFrom(p.Dst, p.DstPort),
		version: p.Version, tos: p.TOS, ttl: p.TTL, df: p.DontFragment,
		ports: [4]byte(tcp), offset: tcp[12] >> 4,
	}
}

// continues reports that what came out of sa is another TCP segment like the
// one before it, of the same moment, and if so gives it: nothing that was asked
// about that one can have another answer. Most of many segments that come at
// once are such.
func (u *Unsealed) continues(in *Input, sa *esp.SA, payload []byte) bool {
	const plain, seq, ack, offset, flags, window = 20, 4, 8, 12, 13, 14
	whole := len(payload)
	if u.last.sa != sa || whole < plain || payload[flags]&^packet.PSH != packet.ACK || originOf(in, sa, payload) != u.last {
		return false
	}
	at := int(payload[offset]>>4) * 4
	if at < plain || at > whole {
		return false
	}
	head := append(u.header(&in.Packet, packet.TCP, whole), payload[:at]...)
	u.room, u.Data = head, payload[at:]
	if !u.SumOpen {
		sa.MendChecksum(head, len(head)-at, packet.TCP, u.Data)
	}
	p := &u.Input.Packet
	p.Bytes, p.Len = head, p.Transport+whole
	p.Seq, p.Ack = binary.BigEndian.Uint32(payload[seq:]), binary.BigEndian.Uint32(payload[ack:])
	p.TCPFlags, p.Window = payload[flags], binary.BigEndian.Uint16(payload[window:])
	return true
}
