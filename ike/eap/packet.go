package eap

import (
	"encoding/binary"
	"fmt"

	"github.com/ipfw/ipfw/ike"
)

// Codes, RFC 3748 section 4.
const (
	codeRequest  = 1
	codeResponse = 2
	codeSuccess  = 3
	codeFailure  = 4
)

// Types, RFC 3748 section 5, and EAP-TLS, RFC 5216 section 3.
const (
	typeIdentity = 1
	typeNak      = 3
	typeTLS      = 13
)

// header is the fixed part of a Request or Response, RFC 3748 section 4.1:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|     Code      |  Identifier   |            Length             |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|     Type      |  Type-Data ...
//	+-+-+-+-+-+-+-+-+
const header = 5

// request gives a Request.
func request(id, kind uint8, data ...byte) []byte {
	b := []byte{codeRequest, id}
	b = binary.BigEndian.AppendUint16(b, uint16(header+len(data)))
	return append(append(b, kind), data...)
}

// verdict gives Success or Failure, which have no type.
func verdict(code, id uint8) []byte { return []byte{code, id, 0, 4} }

// parseResponse reads the Response to the Request with an Identifier. IKE
// carries it whole, so its length is that of the payload (RFC 7296 section
// 3.16).
func parseResponse(b []byte, id uint8) (kind uint8, data []byte, err error) {
	switch {
	case len(b) < header:
		return 0, nil, malformed("EAP packet of %d bytes, at least %d needed", len(b), header)
	case int(binary.BigEndian.Uint16(b[2:])) != len(b):
		return 0, nil, malformed("EAP packet says %d bytes and has %d", binary.BigEndian.Uint16(b[2:]), len(b))
	case b[0] != codeResponse:
		return 0, nil, malformed("EAP packet with code %d is no response", b[0])
	case b[1] != id:
		return 0, nil, malformed("EAP response to request %d, to %d is due", b[1], id)
	}
	return b[4], b[header:], nil
}

// Flags of EAP-TLS, RFC 5216 section 3.1.
const (
	flagLength = 0x80 // four bytes with the length of the whole TLS message follow
	flagMore   = 0x40 // more fragments follow
	flagStart  = 0x20
)

// part is the Type-Data of one EAP-TLS packet.
type part struct {
	more  bool
	total int // length of the whole TLS message; -1: not said
	data  []byte
}

// parsePart reads a peer's EAP-TLS packet.
func parsePart(b []byte) (p part, err error) {
	if len(b) < 1 {
		return p, malformed("EAP-TLS packet without flags")
	}
	flags := b[0]
	p = part{more: flags&flagMore != 0, total: -1, data: b[1:]}
	if flags&flagStart != 0 {
		return p, malformed("EAP-TLS start from the peer, which is the server's to send")
	}
	if flags&flagLength != 0 {
		if len(p.data) < 4 {
			return p, malformed("EAP-TLS packet of %d bytes has no room for the length that it announces", len(b))
		}
		n := binary.BigEndian.Uint32(p.data)
		if n > maxMessage {
			return p, malformed("EAP-TLS message of %d bytes, at most %d are taken", n, maxMessage)
		}
		p.total, p.data = int(n), p.data[4:]
	}
	return p, nil
}

// fragment gives the Type-Data of the next fragment of a TLS message. first says that nothing
// of it is sent yet. The length goes with the first of several.
func fragment(msg []byte, first bool) (data, rest []byte) {
	n := min(len(msg), fragmentSize)
	var head []byte
	var flags byte
	if n < len(msg) {
		flags = flagMore
		if first {
			flags |= flagLength
			head = binary.BigEndian.AppendUint32(nil, uint32(len(msg)))
		}
	}
	return append(append([]byte{flags}, head...), msg[:n]...), msg[n:]
}

func malformed(format string, a ...any) error {
	return &ike.EAPError{Failure: ike.Malformed, Detail: fmt.Sprintf(format, a...)}
}
