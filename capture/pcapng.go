package capture

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/bits"
)

// Block types (draft-ietf-opsawg-pcapng section 4). The section header's is
// the same in both byte orders.
const (
	blockInterface = 1
	blockOldPacket = 2
	blockSimple    = 3
	blockEnhanced  = 6
	blockSection   = 0x0a0d0d0a

	orderMagic = 0x1a2b3c4d
)

// Options that matter here (sections 4.2 and 4.3).
const (
	optEnd        = 0
	optName       = 2  // interface: if_name
	optResolution = 9  // interface: if_tsresol
	optOffset     = 14 // interface: if_tsoffset
	optFlags      = 2  // packet: epb_flags
)

// maxInterfaces bounds the table of one section.
const maxInterfaces = 1 << 16

// pcapng is the block format. Each block:
//
//	+---------------------------------------------------------------+
//	|                          block type                           |
//	|                       block total length                      |
//	|                 body, padded to 32 bits ...                   |
//	|                       block total length                      |
//	+---------------------------------------------------------------+
type pcapng struct {
	interfaces []ngInterface
	now        int64 // for simple packets, which have no time
}

type ngInterface struct {
	name   string
	link   uint16
	snap   uint32
	units  uint64 // of the time stamp, in one second
	offset int64  // seconds to add to it
}

const ngHeaderLen = 8

func (p *pcapng) next(r *Reader, f *Frame) error {
	for {
		h, err := r.take(ngHeaderLen)
		if err != nil {
			return err
		}
		if binary.BigEndian.Uint32(h) == blockSection {
			if err := p.section(r, [4]byte(h[4:8])); err != nil {
				return err
			}
			continue
		}
		typ, total := r.order.Uint32(h), r.order.Uint32(h[4:])
		if err := checkTotal(total, ngHeaderLen+4); err != nil {
			return err
		}
		rest := int(total) - ngHeaderLen
		switch typ {
		case blockInterface, blockOldPacket, blockSimple, blockEnhanced:
		default:
			if err := r.skip(rest); err != nil {
				return err
			}
			continue
		}
		if rest > bufferSize {
			return fmt.Errorf("a block of %d bytes, and at most %d are possible", total, bufferSize)
		}
		b, err := r.body(rest)
		if err != nil {
			return err
		}
		b = b[:rest-4] // the length is there once more
		if typ == blockInterface {
			if err := p.describe(r.order, b); err != nil {
				return err
			}
			continue
		}
		return p.packet(r.order, typ, b, f)
	}
}

// section begins a section: a byte order and a table of interfaces of its own.
func (p *pcapng) section(r *Reader, length [4]byte) error {
	b, err := r.body(4 + 4 + 8) // byte order, version, section length
	if err != nil {
		return err
	}
	switch {
	case binary.LittleEndian.Uint32(b) == orderMagic:
		r.order = binary.LittleEndian
	case binary.BigEndian.Uint32(b) == orderMagic:
		r.order = binary.BigEndian
	default:
		return fmt.Errorf("pcapng: byte-order magic % x is none", b[:4])
	}
	if major := r.order.Uint16(b[4:]); major != 1 {
		return fmt.Errorf("pcapng version %d, want 1", major)
	}
	total := r.order.Uint32(length[:])
	const least = ngHeaderLen + 16 + 4
	if err := checkTotal(total, least); err != nil {
		return err
	}
	p.interfaces = p.interfaces[:0]
	return r.skip(int(total) - ngHeaderLen - 16)
}

func checkTotal(total, least uint32) error {
	if total < least || total%4 != 0 || total > math.MaxInt32 {
		return fmt.Errorf("pcapng: a block says that it has %d bytes; want a multiple of 4 and at least %d", total, least)
	}
	return nil
}

// describe reads an interface description block.
func (p *pcapng) describe(order binary.ByteOrder, b []byte) error {
	if len(b) < 8 {
		return fmt.Errorf("pcapng: interface block of %d bytes, want at least 8", len(b))
	}
	if len(p.interfaces) == maxInterfaces {
		return fmt.Errorf("pcapng: more than %d interfaces", maxInterfaces)
	}
	i := ngInterface{link: order.Uint16(b), snap: order.Uint32(b[4:]), units: 1e6}
	for o := (options{order, b[8:]}); o.more(); {
		code, v := o.next()
		switch {
		case code == optName:
			i.name = string(v)
		case code == optResolution && len(v) == 1:
			var ok bool
			if i.units, ok = resolution(v[0]); !ok {
				return fmt.Errorf("pcapng: time stamp resolution %#x is too fine", v[0])
			}
		case code == optOffset && len(v) == 8:
			i.offset = int64(order.Uint64(v))
		}
	}
	p.interfaces = append(p.interfaces, i)
	return nil
}

// packet reads one of the three packet blocks into f.
func (p *pcapng) packet(order binary.ByteOrder, typ uint32, b []byte, f *Frame) error {
	header := 20
	if typ == blockSimple {
		header = 4
	}
	if len(b) < header {
		return fmt.Errorf("pcapng: packet block of %d bytes, want at least %d", len(b), header)
	}
	var id, captured, original uint32
	switch typ {
	case blockSimple:
		original = order.Uint32(b)
		captured = min(original, uint32(len(b)-header))
	default:
		id = order.Uint32(b)
		if typ == blockOldPacket {
			id = uint32(order.Uint16(b))
		}
		captured, original = order.Uint32(b[12:]), order.Uint32(b[16:])
	}
	if int64(id) >= int64(len(p.interfaces)) {
		return fmt.Errorf("pcapng: packet of interface %d, and %d are described", id, len(p.interfaces))
	}
	i := &p.interfaces[id]
	if typ == blockSimple && i.snap != 0 {
		captured = min(captured, i.snap)
	}
	data := b[header:]
	if int64(captured) > int64(len(data)) {
		return fmt.Errorf("pcapng: packet of %d bytes in a block that has room for %d", captured, len(data))
	}
	f.Data = data[:captured:captured]
	f.Len = max(int(original), int(captured))
	f.Link, f.Interface, f.Way = i.link, i.name, Unknown
	if typ != blockSimple {
		p.now = i.time(uint64(order.Uint32(b[4:]))<<32 | uint64(order.Uint32(b[8:])))
		padded := min((int(captured)+3)&^3, len(data))
		f.Way = flagsWay(order, data[padded:])
	}
	f.Time = p.now
	return nil
}

// flagsWay finds the direction in a packet block's options (section 4.3.1).
func flagsWay(order binary.ByteOrder, b []byte) Way {
	for o := (options{order, b}); o.more(); {
		if code, v := o.next(); code == optFlags && len(v) == 4 {
			switch order.Uint32(v) & 3 {
			case 1:
				return Received
			case 2:
				return Sent
			}
		}
	}
	return Unknown
}

// resolution gives the units in a second: b is an exponent of 10, or of 2
// when its highest bit is set.
func resolution(b byte) (units uint64, ok bool) {
	n := b & 0x7f
	if b&0x80 != 0 {
		return 1 << (n & 63), n < 64
	}
	units = 1
	for range min(n, 19) {
		units *= 10
	}
	return units, n <= 19
}

// time turns a time stamp into nanoseconds since 1970, held within what fits.
func (i *ngInterface) time(stamp uint64) int64 {
	const limit = math.MaxInt64/int64(1e9) - 1
	sec := int64(min(stamp/i.units, uint64(limit)))
	offset := max(-limit, min(limit, i.offset))
	hi, lo := bits.Mul64(stamp%i.units, 1e9)
	nanos, _ := bits.Div64(hi, lo, i.units)
	return max(0, min(limit, sec+offset))*1e9 + int64(nanos)
}

// options walks over a list of options; what does not fit ends it.
type options struct {
	order binary.ByteOrder
	b     []byte
}

func (o *options) more() bool {
	if len(o.b) < 4 || o.order.Uint16(o.b) == optEnd {
		return false
	}
	return int(o.order.Uint16(o.b[2:])) <= len(o.b)-4
}

func (o *options) next() (code uint16, value []byte) {
	code = o.order.Uint16(o.b)
	n := int(o.order.Uint16(o.b[2:]))
	value = o.b[4 : 4+n]
	o.b = o.b[min(4+(n+3)&^3, len(o.b)):]
	return code, value
}

// cutShort is the error for the end of the file inside a record.
func cutShort(err error) error {
	if err == io.EOF {
		return ErrCutShort
	}
	return err
}
