package nfq

import (
	"encoding/binary"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
	"golang.org/x/sys/unix"
)

// merger puts TCP segments that follow one another back together to one
// super-packet, as the kernel's own receive offload does before it delivers
// (GRO): the rest of the way costs as much for one packet as for forty.
// Whatever does not continue the packet in the making ends it, so that packets
// keep their order. A few wait for one another: the program that they are for
// is then woken for several, and not for each.
//
//	segments --> trains: | made | made | in the making |  --> deliver, in their order
type merger struct {
	deliver func(t *train) // takes what is made

	trains [mergeTrains]train
	made   int // trains[made] is in the making
}

// train is a packet in the making.
//
// A segment continues it if nothing gets lost by it: both checksums are right
// (or that of TCP is open), its number is the next, and all else of its headers
// is the same but lengths, checksums, PSH, FIN, and with DF the identification.
// What comes out has the segments' size beside it, so that the kernel could cut
// it up again.
type train struct {
	in     engine.Input // the packet as it is judged; its Bytes are head
	head   []byte       // all headers of TCP; any other packet whole
	iov    []unix.Iovec // [0] for the receiver, head, then data
	n      int          // segments; 0: there is none
	past   int          // acknowledgements that this one has made worthless
	size   int          // bytes of data in each segment but the last
	total  int          // bytes of the packet
	next   uint32       // the sequence number to continue with
	serial uint64       // of engine.Unsealed
	closed bool         // nothing can follow
	sums   bool         // the checksum of the segments was right
	open   bool         // ... or is still to be filled in
}

const (
	// mergeSegments is how many segments make one packet at most.
	mergeSegments = 128
	// mergeTrains is how many packets wait for one another at most: not so
	// many that their data leave the cache before they are written.
	mergeTrains = 4
	// maxIP is how long an IP packet may be whose length must fit 16 bits; for
	// IPv6 that is a bit less than what could be.
	maxIP = 1<<16 - 1

	tcpSeq, tcpAck, tcpOffset, tcpFlags, tcpWindow, tcpSum, tcpUrgent = 4, 8, 12, 13, 14, 16, 18
)

func newMerger(deliver func(*train)) *merger {
	m := &merger{deliver: deliver}
	for i := range m.trains {
		m.trains[i].head, m.trains[i].iov = make([]byte, 0, 1<<16), make([]unix.Iovec, 2, 2+mergeSegments)
	}
	return m
}

// add takes a packet that came out of an SA. Its data stay where they are
// until flush.
func (m *merger) add(u *engine.Unsealed) {
	t := &m.trains[m.made]
	if t.n > 0 {
		if t.follow(u) {
			return
		}
		if m.made++; m.made == mergeTrains {
			m.flush()
		}
		t = &m.trains[m.made]
	}
	t.begin(u)
}

// flush delivers all packets.
func (m *merger) flush() {
	for i := range m.trains {
		t := &m.trains[i]
		if t.n == 0 {
			break
		}
		t.finish()
		m.deliver(t)
		t.n = 0
	}
	m.made = 0
}

// begin puts a packet in the making.
func (t *train) begin(u *engine.Unsealed) {
	if u.Plain != nil {
		u.Make()
	}
	p := &u.Input.Packet
	t.head = append(t.head[:0], p.Bytes...)
	t.in = u.Input
	t.in.Packet.Bytes = t.head
	t.iov = t.iov[:2]
	t.n, t.past, t.size, t.total = 1, 0, len(u.Data), p.Len
	t.next, t.serial = p.Seq+uint32(len(u.Data)), u.Serial
	t.closed = !mergeable(p) || len(u.Data) == 0 || p.TCPFlags&^(packet.ACK|packet.ECE) != 0
	t.open = u.SumOpen
	t.sums = !t.closed && (t.open || summed(p, u.Data))
	t.closed = t.closed || !t.sums
	t.data(u.Data)
}

// follow appends a segment to the packet in the making if it continues it.
func (t *train) follow(u *engine.Unsealed) bool {
	if tcp := u.Plain; tcp != nil {
		// SA and IP header are the same, or it would not be plain.
		if t.serial == u.Serial && binary.BigEndian.Uint32(tcp[tcpSeq:]) == t.next && t.takes(tcp, len(u.Data)) {
			t.append(tcp[tcpFlags], u.Data)
			return true
		}
		u.Make()
	}
	p := &u.Input.Packet
	if p.Seq != t.next || u.Input.SA != t.in.SA || u.Input.Holder != t.in.Holder || !mergeable(p) || len(p.Bytes) != len(t.head) ||
		!t.sameIP(p.Bytes) || u.SumOpen != t.open {
		return false
	}
	if len(u.Data) == 0 {
		return t.supersede(u)
	}
	if !t.takes(p.Bytes[p.Transport:], len(u.Data)) || !t.open && !summed(p, u.Data) {
		return false
	}
	t.append(p.TCPFlags, u.Data)
	return true
}

// takes reports that n bytes may follow, whose TCP header is tcp.
func (t *train) takes(tcp []byte, n int) bool {
	return !t.closed && 0 < n && n <= t.size && t.total+n <= maxIP && t.n < mergeSegments && t.sameTCP(tcp)
}

func (t *train) append(flags uint8, data []byte) {
	t.n++
	t.total += len(data)
	t.next += uint32(len(data))
	t.head[t.in.Packet.Transport+tcpFlags] |= flags
	t.closed = len(data) < t.size || flags&(packet.PSH|packet.FIN) != 0
	t.data(data)
}

// supersede puts a TCP acknowledgement without data in the place of one before
// it that it makes worthless: it acknowledges more, and all else is the same but
// the window. Who hears both at the same moment learns nothing by the first, but
// how many there were; so it must be this host that hears them, whose TCP
// counts bytes (RFC 3465), and not one that they are forwarded to.
func (t *train) supersede(u *engine.Unsealed) bool {
	p, q := &u.Input.Packet, &t.in.Packet
	if p.TCPFlags != packet.ACK || q.TCPFlags != packet.ACK || t.total != len(t.head) || int32(p.Ack-q.Ack) <= 0 ||
		u.Input.Dir != engine.In || !t.open && !summed(p, nil) {
		return false
	}
	a, b := t.head[q.Transport:], p.Bytes[p.Transport:]
	if [tcpSeq]byte(a) != [tcpSeq]byte(b) || a[tcpOffset] != b[tcpOffset] || string(a[tcpUrgent:]) != string(b[tcpUrgent:]) {
		return false
	}
	past := t.past + 1
	t.begin(u)
	t.past = past
	return true
}

func (t *train) data(b []byte) {
	if len(b) > 0 {
		t.iov = append(t.iov, unix.Iovec{Base: &b[0], Len: uint64(len(b))})
	}
}

// mergeable reports a TCP packet with a plain IP header.
func mergeable(p *packet.Packet) bool {
	return p.Protocol == packet.TCP && !p.Fragment && (p.Version == 4 && p.Transport == 20 || p.Version == 6 && p.Transport == 40)
}

// sameIP compares all of the IP header but length, identification and checksum.
// Without DF the identification must count on.
func (t *train) sameIP(b []byte) bool {
	a := t.head
	if a[0]>>4 == 6 {
		return b[0]>>4 == 6 && [4]byte(a) == [4]byte(b) && [34]byte(a[6:]) == [34]byte(b[6:])
	}
	id := binary.BigEndian.Uint16(a[4:]) + uint16(t.n)
	return [2]byte(a) == [2]byte(b) && [4]byte(a[6:]) == [4]byte(b[6:]) && [8]byte(a[12:]) == [8]byte(b[12:]) &&
		(a[6]&0x40 != 0 || id == binary.BigEndian.Uint16(b[4:]))
}

// sameTCP compares all of the TCP header but sequence number, checksum, PSH and
// FIN.
func (t *train) sameTCP(b []byte) bool {
	a := t.head[t.in.Packet.Transport:]
	return [tcpSeq]byte(a) == [tcpSeq]byte(b) && [5]byte(a[tcpAck:]) == [5]byte(b[tcpAck:]) &&
		a[tcpFlags] == b[tcpFlags]&^(packet.PSH|packet.FIN) && [2]byte(a[tcpWindow:]) == [2]byte(b[tcpWindow:]) &&
		string(a[tcpUrgent:]) == string(b[tcpUrgent:])
}

// summed reports a right TCP checksum.
func summed(p *packet.Packet, data []byte) bool {
	tcp := p.Bytes[p.Transport:]
	sum := ^packet.Checksum(tcp, packet.PseudoHeader(p.Src, p.Dst, packet.TCP, len(tcp)+len(data)))
	return packet.Checksum(data, uint32(sum)) == 0
}

// finish makes the headers of several segments those of one packet, whose
// checksum is to be filled in by whoever needs it or cuts the packet up: it
// holds the sum of the pseudo-header only.
func (t *train) finish() {
	t.iov[1] = unix.Iovec{Base: &t.head[0], Len: uint64(len(t.head))}
	if t.n < 2 && !t.open {
		return
	}
	p := &t.in.Packet
	p.Len = t.total
	b := t.head
	if p.Version == 4 {
		binary.BigEndian.PutUint16(b[2:], uint16(t.total))
		binary.BigEndian.PutUint16(b[10:], 0)
		binary.BigEndian.PutUint16(b[10:], packet.Checksum(b[:p.Transport], 0))
	} else {
		binary.BigEndian.PutUint16(b[4:], uint16(t.total-p.Transport))
	}
	tcp := b[p.Transport:]
	p.TCPFlags = tcp[tcpFlags]
	binary.BigEndian.PutUint16(tcp[tcpSum:], ^packet.Checksum(nil, packet.PseudoHeader(p.Src, p.Dst, packet.TCP, t.total-p.Transport)))
}

// sizeofVnetHeader is struct virtio_net_hdr, in front of each packet that is
// written to the TUN device.
const sizeofVnetHeader = 10

// vnetHeader says what is still to be done to the packet.
func (t *train) vnetHeader() (h [sizeofVnetHeader]byte) {
	const (
		needsChecksum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
		tcp4, tcp6    = 1, 4
	)
	if t.n < 2 && !t.open {
		return h
	}
	p := &t.in.Packet
	h[0] = needsChecksum
	if t.n > 1 {
		h[1] = tcp4
		if p.Version == 6 {
			h[1] = tcp6
		}
		binary.NativeEndian.PutUint16(h[2:], uint16(len(t.head)))
		binary.NativeEndian.PutUint16(h[4:], uint16(t.size))
	}
	binary.NativeEndian.PutUint16(h[6:], uint16(p.Transport))
	binary.NativeEndian.PutUint16(h[8:], tcpSum)
	return h
}
