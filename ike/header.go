package ike

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// header is the fixed part of a message, RFC 7296 section 3.1:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                       IKE SA Initiator's SPI                  |
//	|                                                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                       IKE SA Responder's SPI                  |
//	|                                                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  Next Payload | MjVer | MnVer | Exchange Type |     Flags     |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                          Message ID                           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                            Length                             |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type header struct {
	spiI, spiR uint64
	next       uint8
	version    uint8 // major<<4 | minor
	exchange   uint8
	flags      uint8
	id         uint32
	length     uint32
}

const (
	headerLen     = 28
	genericLen    = 4 // generic payload header, RFC 7296 section 3.2
	version2      = 2 << 4
	flagInitiator = 1 << 3 // sent by the original initiator of the IKE SA
	flagVersion   = 1 << 4
	flagResponse  = 1 << 5

	maxMessage  = 64 << 10 // bytes of a message, after reassembly too
	maxPayloads = 128      // payloads in one message
	// maxInit bounds the first message of a stranger. RFC 7383 cannot fragment
	// it, so that it should fit into one packet; what is known of has a third
	// of this.
	maxInit = 8 << 10
)

var errSyntax = errors.New("malformed message")

func syntaxError(format string, a ...any) error {
	return fmt.Errorf("%w: %s", errSyntax, fmt.Sprintf(format, a...))
}

func (h *header) response() bool { return h.flags&flagResponse != 0 }

func parseHeader(b []byte) (header, error) {
	if len(b) < headerLen {
		return header{}, syntaxError("%d bytes are fewer than the %d of the header", len(b), headerLen)
	}
	h := header{
		spiI:     binary.BigEndian.Uint64(b),
		spiR:     binary.BigEndian.Uint64(b[8:]),
		next:     b[16],
		version:  b[17],
		exchange: b[18],
		flags:    b[19],
		id:       binary.BigEndian.Uint32(b[20:]),
		length:   binary.BigEndian.Uint32(b[24:]),
	}
	if int64(h.length) != int64(len(b)) {
		return h, syntaxError("length field says %d bytes, the datagram has %d", h.length, len(b))
	}
	return h, nil
}

// append writes the header as it stands, the length field included.
func (h *header) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, h.spiI)
	b = binary.BigEndian.AppendUint64(b, h.spiR)
	b = append(b, h.next, h.version, h.exchange, h.flags)
	b = binary.BigEndian.AppendUint32(b, h.id)
	return binary.BigEndian.AppendUint32(b, h.length)
}

// payload is one payload without its generic header.
type payload struct {
	kind     uint8
	critical bool
	body     []byte
}

// parsePayloads walks a chain of payloads, RFC 7296 section 3.2. The bodies
// refer to b. The walk stops at an SK or SKF payload, which is always the
// last; inner is then its "next payload" field.
func parsePayloads(first uint8, b []byte) (list []payload, inner uint8, err error) {
	next := first
	for next != plNone {
		if len(list) == maxPayloads {
			return nil, 0, syntaxError("more than %d payloads", maxPayloads)
		}
		if len(b) < genericLen {
			return nil, 0, syntaxError("%d bytes left, a payload header needs %d", len(b), genericLen)
		}
		n := int(binary.BigEndian.Uint16(b[2:]))
		if n < genericLen || n > len(b) {
			return nil, 0, syntaxError("payload %d says %d bytes, %d are left", next, n, len(b))
		}
		list = append(list, payload{kind: next, critical: b[1]&0x80 != 0, body: b[genericLen:n]})
		if next == plSK || next == plSKF {
			if n != len(b) {
				return nil, 0, syntaxError("%d bytes after the encrypted payload", len(b)-n)
			}
			return list, b[0], nil
		}
		next, b = b[0], b[n:]
	}
	if len(b) != 0 {
		return nil, 0, syntaxError("%d bytes after the last payload", len(b))
	}
	return list, 0, nil
}

// appendPayloads writes a chain and returns the type of its first payload.
func appendPayloads(b []byte, list []payload) ([]byte, uint8) {
	for i, p := range list {
		next := uint8(plNone)
		if i+1 < len(list) {
			next = list[i+1].kind
		}
		crit := byte(0)
		if p.critical {
			crit = 0x80
		}
		b = append(b, next, crit)
		b = binary.BigEndian.AppendUint16(b, uint16(genericLen+len(p.body)))
		b = append(b, p.body...)
	}
	if len(list) == 0 {
		return b, plNone
	}
	return b, list[0].kind
}

// encodePlain gives a message without an encrypted payload: IKE_SA_INIT and
// the few answers that RFC 7296 section 2.21 allows in the clear.
func encodePlain(h header, list []payload) []byte {
	body, first := appendPayloads(make([]byte, headerLen, 512), list)
	h.next, h.version, h.length = first, version2, uint32(len(body))
	h.append(body[:0])
	return body
}

// find gives the first payload of a type.
func find(list []payload, kind uint8) (payload, bool) {
	for _, p := range list {
		if p.kind == kind {
			return p, true
		}
	}
	return payload{}, false
}

// unknownCritical gives the type of a payload that is marked critical and
// not understood (RFC 7296 section 2.5), or 0.
func unknownCritical(list []payload) uint8 {
	for _, p := range list {
		if p.critical && (p.kind < plSA || p.kind > plEAP) && p.kind != plSKF {
			return p.kind
		}
	}
	return 0
}
