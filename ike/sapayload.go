package ike

import "encoding/binary"

// Transform is one algorithm of a proposal, RFC 7296 section 3.3.2.
type Transform struct {
	Type uint8  // Transform…
	ID   uint16 // number in the IANA registry of that type
	Bits uint16 // key length attribute; 0: none
}

// Proposal is one proposal of an SA payload, RFC 7296 section 3.3.1: of each
// transform type that occurs, one transform is to be chosen.
type Proposal struct {
	Protocol   uint8 // Proto…
	Transforms []Transform

	num uint8
	spi []byte
}

const (
	maxProposals = 64
	// maxTransforms bounds those of all proposals of one message: who names
	// every algorithm there is in several proposals has a quarter of it.
	maxTransforms = 512
)

// saPayload encodes proposals; those without a number are numbered from 1.
func saPayload(list []Proposal) payload {
	var b []byte
	for i, p := range list {
		more := byte(2)
		if i == len(list)-1 {
			more = 0
		}
		num := p.num
		if num == 0 {
			num = uint8(i + 1)
		}
		start := len(b)
		b = append(b, more, 0, 0, 0, num, p.Protocol, byte(len(p.spi)), byte(len(p.Transforms)))
		b = append(b, p.spi...)
		for j, t := range p.Transforms {
			more, n := byte(3), uint16(8)
			if j == len(p.Transforms)-1 {
				more = 0
			}
			if t.Bits != 0 {
				n = 12
			}
			b = append(b, more, 0)
			b = binary.BigEndian.AppendUint16(b, n)
			b = append(b, t.Type, 0)
			b = binary.BigEndian.AppendUint16(b, t.ID)
			if t.Bits != 0 {
				b = binary.BigEndian.AppendUint16(b, 0x8000|attrKeyLength)
				b = binary.BigEndian.AppendUint16(b, t.Bits)
			}
		}
		binary.BigEndian.PutUint16(b[start+2:], uint16(len(b)-start))
	}
	return payload{kind: plSA, body: b}
}

func parseSA(b []byte) (list []Proposal, err error) {
	transforms := 0
	for more := true; more; {
		if len(b) < 8 {
			return nil, syntaxError("%d bytes left, a proposal needs 8", len(b))
		}
		n := int(binary.BigEndian.Uint16(b[2:]))
		if n < 8 || n > len(b) {
			return nil, syntaxError("proposal says %d bytes, %d are left", n, len(b))
		}
		if b[0] != 0 && b[0] != 2 {
			return nil, syntaxError("proposal continuation %d is neither 0 nor 2", b[0])
		}
		more = b[0] == 2
		// What is beyond the bounds is legal, and is passed over: INVALID_SYNTAX
		// would end an IKE SA with all of its children.
		if transforms += int(b[7]); transforms > maxTransforms || len(list) == maxProposals {
			b = b[n:]
			continue
		}
		p, err := parseProposal(b[:n])
		if err != nil {
			return nil, err
		}
		list, b = append(list, p), b[n:]
	}
	if len(b) != 0 {
		return nil, syntaxError("%d bytes after the last proposal", len(b))
	}
	return list, nil
}

// parseProposal reads one proposal; b is exactly it and has at least 8 bytes.
func parseProposal(b []byte) (Proposal, error) {
	p := Proposal{num: b[4], Protocol: b[5]}
	spi, count := int(b[6]), int(b[7])
	if 8+spi > len(b) {
		return p, syntaxError("proposal SPI of %d bytes, %d are left", spi, len(b)-8)
	}
	p.spi, b = b[8:8+spi], b[8+spi:]
	for i := range count {
		if len(b) < 8 {
			return p, syntaxError("%d bytes left, a transform needs 8", len(b))
		}
		n := int(binary.BigEndian.Uint16(b[2:]))
		if n < 8 || n > len(b) {
			return p, syntaxError("transform says %d bytes, %d are left", n, len(b))
		}
		if last := i == count-1; last != (b[0] == 0) {
			return p, syntaxError("transform %d of %d has continuation %d", i+1, count, b[0])
		}
		t, known, err := parseTransform(b[:n])
		if err != nil {
			return p, err
		}
		// A transform with an attribute we do not know is not chosen
		// (RFC 7296 section 3.3.6); its type still counts as present.
		if !known {
			t.ID = unknownTransform
		}
		p.Transforms, b = append(p.Transforms, t), b[n:]
	}
	if len(b) != 0 {
		return p, syntaxError("%d bytes after the last transform", len(b))
	}
	return p, nil
}

// unknownTransform is an ID from the private range that nothing of ours has.
const unknownTransform = 0xffff

func parseTransform(b []byte) (t Transform, known bool, err error) {
	t, known = Transform{Type: b[4], ID: binary.BigEndian.Uint16(b[6:])}, true
	for b = b[8:]; len(b) > 0; {
		if len(b) < 4 {
			return t, false, syntaxError("%d bytes left, an attribute needs 4", len(b))
		}
		kind, v := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		b = b[4:]
		switch {
		case kind == 0x8000|attrKeyLength:
			t.Bits = v
		case kind&0x8000 != 0:
			known = false
		case int(v) > len(b):
			return t, false, syntaxError("attribute of %d bytes, %d are left", v, len(b))
		default:
			known, b = false, b[v:]
		}
	}
	return t, known, nil
}
