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
	// Again, which the caller may set, says that the next packet came with the
	// one before: what Unseal is told of it is the same but Packet.Len.
	Again bool
	// Plain, where it is not nil, is the TCP header of a packet whose Input is
	// not made yet, because that is seldom needed: it is that of the packet
	// before but for what Plain and Data say. Make makes it. There is none
	// without Again.
	Plain []byte
	// Serial is the number of the last packet that was read whole and asked
	// about. A packet that continues another has the number of that one.
	Serial uint64

	room   []byte // of a packet whose IP header is gone
	from   outside
	last   inside         // of the packet before
	outer  *packet.Packet // that the packet with Plain came in
	recent esp.Recent
}

// Whole gives the packet in one piece that is the caller's own, and complete.
func (u *Unsealed) Whole() []byte {
	if u.Plain != nil {
		u.Make()
	}
	p := &u.Input.Packet
	b := append(bytes.Clone(p.Bytes), u.Data...)
	if u.SumOpen {
		packet.SetChecksum(b[p.Transport:], p.Src, p.Dst, packet.TCP)
	}
	return b
}

// outside is all that Unseal is told of a packet and that decides how a TCP
// packet of a transport mode SA is read and whether it may come out of it.
type outside struct {
	now      int64
	inIf     string
	tracked  bool
	src, dst netip.AddrPort // of the outer header
	version  uint8
	tos, ttl uint8
	df       bool
}

func outsideOf(in *Input) outside {
	p := &in.Packet
	return outside{
		now: in.Now, inIf: in.InIf, tracked: in.Tracked,
		src: netip.AddrPortFrom(p.Src, p.SrcPort), dst: netip.AddrPortFrom(p.Dst, p.DstPort),
		version: p.Version, tos: p.TOS, ttl: p.TTL, df: p.DontFragment,
	}
}

// inside is what decides of the packet itself: the rest differs from packet to
// packet of one flow without a consequence for either.
type inside struct {
	sa     *esp.SA // nil: the packet was none such
	ports  [4]byte // of TCP
	offset byte    // of its data
}

func insideOf(sa *esp.SA, tcp []byte) inside {
	return inside{sa: sa, ports: [4]byte(tcp), offset: tcp[tcpOffset] >> 4}
}

// comes takes note of where a packet comes from.
func (u *Unsealed) comes(in *Input) {
	if u.Again {
		return
	}
	if o := outsideOf(in); o != u.from {
		u.from, u.last = o, inside{}
	}
}

const (
	tcpHeader                                      = 20
	tcpSeq, tcpAck, tcpOffset, tcpFlags, tcpWindow = 4, 8, 12, 13, 14
)

// continues reports that what came out of sa is another TCP segment like the
// one before it, of the same moment, and if so gives it: nothing that was asked
// about that one can have another answer. Most of many segments that come at
// once are such.
func (u *Unsealed) continues(in *Input, sa *esp.SA, payload []byte) bool {
	whole := len(payload)
	if u.last.sa != sa || whole < tcpHeader || payload[tcpFlags]&^packet.PSH != packet.ACK || insideOf(sa, payload) != u.last {
		return false
	}
	at := int(payload[tcpOffset]>>4) * 4
	if at < tcpHeader || at > whole {
		return false
	}
	u.Plain, u.Data, u.outer = payload[:at], payload[at:], &in.Packet
	if !u.Again || !u.SumOpen || in.Packet.Protocol != packet.UDP {
		u.Make()
		if !u.SumOpen {
			sa.MendChecksum(u.room, len(u.room)-at, packet.TCP, u.Data)
		}
	}
	return true
}

// Make makes Input from Plain.
func (u *Unsealed) Make() {
	tcp, whole := u.Plain, len(u.Plain)+len(u.Data)
	u.room = append(u.header(u.outer, packet.TCP, whole), tcp...)
	p := &u.Input.Packet
	p.Bytes, p.Len = u.room, p.Transport+whole
	p.Seq, p.Ack = binary.BigEndian.Uint32(tcp[tcpSeq:]), binary.BigEndian.Uint32(tcp[tcpAck:])
	p.TCPFlags, p.Window = tcp[tcpFlags], binary.BigEndian.Uint16(tcp[tcpWindow:])
	u.Plain = nil
}
