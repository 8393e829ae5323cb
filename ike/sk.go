package ike

import (
	"encoding/binary"
	"errors"
)

// maxFragments bounds one fragmented message, RFC 7383 section 2.6.
const maxFragments = 64

const fragHeaderLen = 4 // fragment number and total, RFC 7383 section 2.5

// sealMessage encrypts payloads into one message, or into fragments when the
// peer takes them and the message is longer than limit bytes (RFC 7383
// section 2.5). limit 0: never in fragments.
func sealMessage(h header, list []payload, x *sealer, limit int) ([][]byte, error) {
	plain, first := appendPayloads(nil, list)
	defer wipe(plain)
	h.version = version2
	whole := headerLen + genericLen + len(plain) + x.overhead(len(plain))
	if limit == 0 || whole <= limit {
		if whole > maxMessage-1 {
			return nil, errors.New("message too long")
		}
		m, err := sealOne(h, plSK, first, nil, plain, x)
		return [][]byte{m}, err
	}
	room := limit - headerLen - genericLen - fragHeaderLen - x.overhead(0)
	if x.block != nil {
		room -= room % x.block.BlockSize()
	}
	total := (len(plain) + room - 1) / room
	if room < 1 || total > maxFragments {
		return nil, errors.New("message too long, even in fragments")
	}
	var out [][]byte
	for i := range total {
		part := plain[i*room : min((i+1)*room, len(plain))]
		frag := binary.BigEndian.AppendUint16(nil, uint16(i+1))
		frag = binary.BigEndian.AppendUint16(frag, uint16(total))
		m, err := sealOne(h, plSKF, first, frag, part, x)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
		first = plNone // only the first fragment names the first payload
	}
	return out, nil
}

func sealOne(h header, kind, inner uint8, frag, plain []byte, x *sealer) ([]byte, error) {
	n := genericLen + len(frag) + len(plain) + x.overhead(len(plain))
	h.next, h.length = kind, uint32(headerLen+n)
	m := h.append(make([]byte, 0, headerLen+n))
	m = append(m, inner, 0)
	m = binary.BigEndian.AppendUint16(m, uint16(n))
	return x.seal(append(m, frag...), plain)
}

// reassembly collects the fragments of one message. Every fragment has passed
// its integrity check before it gets here, so only the peer can fill it.
type reassembly struct {
	id    uint32
	total int
	have  int
	size  int   // bytes of parts
	first uint8 // type of the first payload
	parts [][]byte
}

// What is kept of one message in fragments, in bytes: of a peer that has proved who it
// is, and of anybody. The longest honest message of the latter is an IKE_AUTH with
// certificates: a chain of four of RSA with 4,096 bits is 8 KB, EAP-TLS cuts its own by
// itself, ML-KEM-768 is 1.2 KB. Into how many fragments it is cut is the sender's
// choice: by the narrowest way that it expects, 32 to 40 of 300 bytes.
const (
	peersFragments     = maxMessage
	strangersFragments = 16 << 10
)

var errTooLong = errors.New("a message in fragments is longer than may be")

// opened is a message whose encryption is off.
type opened struct {
	header
	payloads []payload
	plain    []byte // the inner payloads as bytes, for RFC 9242
	inner    uint8  // type of the first inner payload
}

var errIncomplete = errors.New("fragments are missing")

// openMessage opens one datagram. With fragments it returns errIncomplete
// until all are there.
func openMessage(h header, msg []byte, x *sealer, r *reassembly) (*opened, error) {
	return openWithin(h, msg, x, r, peersFragments)
}

// openWithin is openMessage for whom another limit holds. errTooLong, of an
// authentic fragment, says that the message is beyond it; nothing is kept of it.
func openWithin(h header, msg []byte, x *sealer, r *reassembly, limit int) (*opened, error) {
	outer, inner, err := parsePayloads(h.next, msg[headerLen:])
	if err != nil {
		return nil, err
	}
	if len(outer) != 1 || outer[0].kind != plSK && outer[0].kind != plSKF {
		return nil, syntaxError("an %s message must be one encrypted payload", exchangeName(h.exchange))
	}
	o := &opened{header: h, inner: inner}
	if outer[0].kind == plSK {
		if o.plain, err = x.open(msg, headerLen+genericLen); err != nil {
			return nil, err
		}
	} else if err = r.add(o, outer[0].body, msg, x, limit); err != nil {
		return nil, err
	}
	o.payloads, _, err = parsePayloads(o.inner, o.plain)
	return o, err
}

func (r *reassembly) add(o *opened, body, msg []byte, x *sealer, limit int) error {
	if len(body) < fragHeaderLen {
		return syntaxError("fragment of %d bytes, at least %d needed", len(body), fragHeaderLen)
	}
	num, total := int(binary.BigEndian.Uint16(body)), int(binary.BigEndian.Uint16(body[2:]))
	if num < 1 || num > total || total > maxFragments {
		return syntaxError("fragment %d of %d", num, total)
	}
	if r.id == o.id && r.total > total {
		return errIncomplete // an older, coarser set; ours is finer (RFC 7383 section 2.6)
	}
	if r.id == o.id && r.total == total && r.parts[num-1] != nil {
		return errIncomplete
	}
	plain, err := x.open(msg, headerLen+genericLen+fragHeaderLen)
	if err != nil {
		return err
	}
	if r.id != o.id || r.total != total {
		*r = reassembly{id: o.id, total: total}
	}
	if r.size+len(plain) > limit {
		*r = reassembly{}
		return errTooLong
	}
	if r.parts == nil {
		r.parts = make([][]byte, total)
	}
	r.parts[num-1] = plain
	r.size += len(plain)
	r.have++
	if num == 1 {
		r.first = o.inner
	}
	if r.have < total {
		return errIncomplete
	}
	o.plain = make([]byte, 0, r.size)
	for _, p := range r.parts {
		o.plain = append(o.plain, p...)
	}
	o.inner = r.first
	*r = reassembly{}
	return nil
}

// intAuthData is what an IKE_INTERMEDIATE message gives to the AUTH payload,
// RFC 9242 section 3.3.2: the header and the SK payload header as if the
// message were whole and had neither IV, padding nor integrity check value,
// then the plaintext.
func intAuthData(h header, first uint8, plain []byte) []byte {
	h.next, h.version = plSK, version2
	h.length = uint32(headerLen + genericLen + len(plain))
	b := h.append(make([]byte, 0, h.length))
	b = append(b, first, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(genericLen+len(plain)))
	return append(b, plain...)
}
