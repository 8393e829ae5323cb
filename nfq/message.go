package nfq

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// message is what the kernel says of one packet (NFQNL_MSG_PACKET). payload
// belongs to the receiver and is valid until the answer is given.
type message struct {
	id      uint32
	hasID   bool // false: nothing can be answered
	hook    uint8
	mark    uint32
	inDev   uint32
	outDev  uint32
	info    uint32 // skb* bits
	payload []byte
	wireLen int // true length; more than len(payload) if the copy was cut
}

// answer is the verdict for one message. The zero value drops.
type answer struct {
	accept  bool
	replace bool // the packet goes on as what the worker's output holds
	setMark bool
	mark    uint32 // 0 without setMark, so that equal answers compare equal
}

// nfqueue messages and attributes, linux/netfilter/nfnetlink_queue.h, which
// x/sys does not have.
const (
	subsysQueue = unix.NFNL_SUBSYS_QUEUE << 8

	msgPacket       = subsysQueue
	msgVerdict      = subsysQueue | 1
	msgConfig       = subsysQueue | 2
	msgVerdictBatch = subsysQueue | 3

	attrPacketHeader  = 1 // struct nfqnl_msg_packet_hdr: id, hardware protocol, hook
	attrVerdictHeader = 2 // struct nfqnl_msg_verdict_hdr: verdict, id
	attrMark          = 3
	attrInDev         = 5
	attrOutDev        = 6
	attrPayload       = 10
	attrCapLen        = 13
	attrSkbInfo       = 14

	// Bits of attrSkbInfo.
	skbPartial = 1 << 0 // NFQA_SKB_CSUMNOTREADY: the transport checksum is to be filled in
	skbGSO     = 1 << 1 // NFQA_SKB_GSO: will be cut into packets later

	nfDrop   = 0 // linux/netfilter.h
	nfAccept = 1

	sizeofNfgenmsg     = 4
	sizeofAttr         = 4
	sizeofPacketHeader = 7
	maxPayload         = 1<<16 - 1 - sizeofAttr // of a packet in a verdict
	attrTypeMask       = 1<<14 - 1              // without NLA_F_NESTED, NLA_F_NET_BYTEORDER
)

// splitMessage takes the first netlink message off a datagram. ok is false
// where there is none, or less of it than its header says.
func splitMessage(b []byte) (typ uint16, body, rest []byte, ok bool) {
	if len(b) < unix.SizeofNlMsghdr {
		return 0, nil, nil, false
	}
	n := binary.NativeEndian.Uint32(b)
	if n < unix.SizeofNlMsghdr || uint64(n) > uint64(len(b)) {
		return 0, nil, nil, false
	}
	typ = binary.NativeEndian.Uint16(b[4:])
	return typ, b[unix.SizeofNlMsghdr:n], b[min((int(n)+3)&^3, len(b)):], true
}

// parse reads the body of a NFQNL_MSG_PACKET: struct nfgenmsg, then
// attributes, whose numbers are big-endian. It is false for a body that is
// cut short; what stood before the cut is there, so that hasID and id can
// still be answered.
func (m *message) parse(b []byte) bool {
	*m = message{}
	if len(b) < sizeofNfgenmsg {
		return false
	}
	b = b[sizeofNfgenmsg:]
	for len(b) >= sizeofAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < sizeofAttr || n > len(b) {
			return false
		}
		v := b[sizeofAttr:n]
		typ := binary.NativeEndian.Uint16(b[2:]) & attrTypeMask
		b = b[min((n+3)&^3, len(b)):]
		switch typ {
		case attrPacketHeader:
			if len(v) < sizeofPacketHeader {
				return false
			}
			m.id, m.hook, m.hasID = binary.BigEndian.Uint32(v), v[6], true
		case attrPayload:
			m.payload = v
		case attrMark, attrInDev, attrOutDev, attrCapLen, attrSkbInfo:
			if len(v) < 4 {
				return false
			}
			n := binary.BigEndian.Uint32(v)
			switch typ {
			case attrMark:
				m.mark = n
			case attrInDev:
				m.inDev = n
			case attrOutDev:
				m.outDev = n
			case attrCapLen:
				m.wireLen = int(n)
			case attrSkbInfo:
				m.info = n
			}
		}
	}
	m.wireLen = max(m.wireLen, len(m.payload))
	return m.hasID && len(b) == 0
}

// appendVerdict appends the message that answers one packet, or, with typ
// msgVerdictBatch, all packets of the queue up to that one.
func appendVerdict(b []byte, typ uint16, queue uint16, id uint32, a answer) []byte {
	return appendReplacement(b, typ, queue, id, a, nil)
}

// appendReplacement is appendVerdict for a packet that goes on as payload,
// unless that is nil. Its length is bounded by that of a netlink attribute.
func appendReplacement(b []byte, typ uint16, queue uint16, id uint32, a answer, payload []byte) []byte {
	size := uint32(unix.SizeofNlMsghdr + sizeofNfgenmsg + sizeofAttr + 8)
	if a.setMark {
		size += sizeofAttr + 4
	}
	if payload != nil {
		size += uint32(sizeofAttr+len(payload)+3) &^ 3
	}
	b = binary.NativeEndian.AppendUint32(b, size)
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0) // sequence number, port
	b = append(b, unix.AF_UNSPEC, unix.NFNETLINK_V0)
	b = binary.BigEndian.AppendUint16(b, queue)

	verdict := uint32(nfDrop)
	if a.accept {
		verdict = nfAccept
	}
	b = binary.NativeEndian.AppendUint16(b, sizeofAttr+8)
	b = binary.NativeEndian.AppendUint16(b, attrVerdictHeader)
	b = binary.BigEndian.AppendUint32(b, verdict)
	b = binary.BigEndian.AppendUint32(b, id)
	if a.setMark {
		b = binary.NativeEndian.AppendUint16(b, sizeofAttr+4)
		b = binary.NativeEndian.AppendUint16(b, attrMark)
		b = binary.BigEndian.AppendUint32(b, a.mark)
	}
	if payload != nil {
		b = binary.NativeEndian.AppendUint16(b, uint16(sizeofAttr+len(payload)))
		b = binary.NativeEndian.AppendUint16(b, attrPayload)
		b = append(b, payload...)
		for range -len(payload) & 3 {
			b = append(b, 0)
		}
	}
	return b
}
