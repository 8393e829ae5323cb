package nfq

import (
	"encoding/binary"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
	"golang.org/x/sys/unix"
)

// merger puts TCP segments that follow one another back together to one
// super-packet, as the kernel's own receive offload does before it delivers
// (GRO): the rest of the way costs as much for one packet as for forty. It
// holds one packet in the making; whatever does not continue that ends it, so
// that packets keep their order.
//
// A segment continues a packet if nothing gets lost by it: both checksums are
// right (or that of TCP is open), its number is the next, and all else of its headers is the same but
// lengths, checksums, PSH, FIN, and with DF the identification. What comes out
// has the segments' size beside it, so that the kernel could cut it up again.
type merger struct {
	deliver func(m *merger) // takes what is made

	in     engine.Input // the packet as it is judged; its Bytes are head
	head   []byte       // all headers of TCP; any other packet whole
	iov    []unix.Iovec // [0] for the receiver, head, then data
	n      int          // segments
	size   int          // bytes of data in each segment but the last
	total  int          // bytes of the packet
	next   uint32       // the sequence number to continue with
	closed bool         // nothing can follow
	sums   bool         // the checksum of the segments was right
	open   bool         // ... or is still to be filled in
}

const (
	// mergeSegments is how many segments make one packet at most.
	mergeSegments = 128
	// maxIP is how long an IP packet may be whose length must fit 16 bits; for
	// IPv6 that is a bit less than what could be.
	maxIP = 1<<16 - 1

	tcpSeq, tcpAck, tcpOffset, tcpFlags, tcpWindow, tcpSum, tcpUrgent = 4, 8, 12, 13, 14, 16, 18
)

func newMerger(deliver func(*merger)) *merger {
	return &merger{deliver: deliver, head: make([]byte, 0, 1<<16), iov: make([]unix.Iovec, 2, 2+mergeSegments)}
}

// add takes a packet that came out of an SA. Its data stay where they are
// until flush.
func (m *merger) add(u *engine.Unsealed) {
	if m.n > 0 && m.follow(u) {
		return
	}
	m.flush()
	p := &u.Input.Packet
	m.head = append(m.head[:0], p.Bytes...)
	m.in = u.Input
	m.in.Packet.Bytes = m.head
	m.iov = m.iov[:2]
	m.n, m.size, m.total = 1, len(u.Data), p.Len
	m.next = p.Seq + uint32(len(u.Data))
	m.closed = !mergeable(p) || len(u.Data) == 0 || p.TCPFlags&^(packet.ACK|packet.ECE) != 0
	m.open = u.SumOpen
	m.sums = !m.closed && (m.open || summed(p, u.Data))
	m.closed = m.closed || !m.sums
	m.data(u.Data)
}

// follow appends a segment to the packet in the making if it continues it.
func (m *merger) follow(u *engine.Unsealed) bool {
	p, n := &u.Input.Packet, len(u.Data)
	if m.closed || p.Seq != m.next || n == 0 || n > m.size || m.total+n > maxIP || m.n == mergeSegments ||
		u.Input.SA != m.in.SA || u.Input.Holder != m.in.Holder || !mergeable(p) || len(p.Bytes) != len(m.head) ||
		!m.sameIP(p.Bytes) || !m.sameTCP(p.Bytes[p.Transport:]) || u.SumOpen != m.open || !m.open && !summed(p, u.Data) {
		return false
	}
	m.n++
	m.total += n
	m.next += uint32(n)
	m.head[p.Transport+tcpFlags] |= p.TCPFlags
	m.closed = n < m.size || p.TCPFlags&(packet.PSH|packet.FIN) != 0
	m.data(u.Data)
	return true
}

func (m *merger) data(b []byte) {
	if len(b) > 0 {
		m.iov = append(m.iov, unix.Iovec{Base: &b[0], Len: uint64(len(b))})
	}
}

// mergeable reports a TCP packet with a plain IP header.
func mergeable(p *packet.Packet) bool {
	return p.Protocol == packet.TCP && !p.Fragment && (p.Version == 4 && p.Transport == 20 || p.Version == 6 && p.Transport == 40)
}

// sameIP compares all of the IP header but length, identification and checksum.
// Without DF the identification must count on.
func (m *merger) sameIP(b []byte) bool {
	a := m.head
	if a[0]>>4 == 6 {
		return b[0]>>4 == 6 && [4]byte(a) == [4]byte(b) && [34]byte(a[6:]) == [34]byte(b[6:])
	}
	id := binary.BigEndian.Uint16(a[4:]) + uint16(m.n)
	return [2]byte(a) == [2]byte(b) && [4]byte(a[6:]) == [4]byte(b[6:]) && [8]byte(a[12:]) == [8]byte(b[12:]) &&
		(a[6]&0x40 != 0 || id == binary.BigEndian.Uint16(b[4:]))
}

// sameTCP compares all of the TCP header but sequence number, checksum, PSH and
// FIN.
func (m *merger) sameTCP(b []byte) bool {
	a := m.head[m.in.Packet.Transport:]
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

// flush delivers the packet in the making.
func (m *merger) flush() {
	if m.n == 0 {
		return
	}
	if m.n > 1 || m.open {
		m.finish()
	}
	m.iov[1] = unix.Iovec{Base: &m.head[0], Len: uint64(len(m.head))}
	m.deliver(m)
	m.n = 0
}

// finish makes the headers of several segments those of one packet, whose
// checksum is to be filled in by whoever needs it or cuts the packet up: it
// holds the sum of the pseudo-header only.
func (m *merger) finish() {
	p := &m.in.Packet
	p.Len = m.total
	b := m.head
	if p.Version == 4 {
		binary.BigEndian.PutUint16(b[2:], uint16(m.total))
		binary.BigEndian.PutUint16(b[10:], 0)
		binary.BigEndian.PutUint16(b[10:], packet.Checksum(b[:p.Transport], 0))
	} else {
		binary.BigEndian.PutUint16(b[4:], uint16(m.total-p.Transport))
	}
	tcp := b[p.Transport:]
	p.TCPFlags = tcp[tcpFlags]
	binary.BigEndian.PutUint16(tcp[tcpSum:], ^packet.Checksum(nil, packet.PseudoHeader(p.Src, p.Dst, packet.TCP, m.total-p.Transport)))
}

// sizeofVnetHeader is struct virtio_net_hdr, in front of each packet that is
// written to the TUN device.
const sizeofVnetHeader = 10

// vnetHeader says what is still to be done to the packet.
func (m *merger) vnetHeader() (h [sizeofVnetHeader]byte) {
	const (
		needsChecksum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
		tcp4, tcp6    = 1, 4
	)
	if m.n < 2 && !m.open {
		return h
	}
	p := &m.in.Packet
	h[0] = needsChecksum
	if m.n > 1 {
		h[1] = tcp4
		if p.Version == 6 {
			h[1] = tcp6
		}
		binary.NativeEndian.PutUint16(h[2:], uint16(len(m.head)))
		binary.NativeEndian.PutUint16(h[4:], uint16(m.size))
	}
	binary.NativeEndian.PutUint16(h[6:], uint16(p.Transport))
	binary.NativeEndian.PutUint16(h[8:], tcpSum)
	return h
}
