package capture

import (
	"encoding/binary"
	"fmt"
)

// The magic numbers of pcap, read in the byte order of the writer
// (draft-ietf-opsawg-pcap section 4).
const (
	magicMicro = 0xa1b2c3d4
	magicNano  = 0xa1b23c4d
)

// pcap is the classic format: a header of 24 bytes, then records.
//
//	 0                   1                   2                   3
//	+---------------------------------------------------------------+
//	|                   time, seconds since 1970                    |
//	|                time, microseconds or nanoseconds              |
//	|                        captured length                        |
//	|                         original length                       |
//	+---------------------------------------------------------------+
type pcap struct {
	link uint16
	unit int64 // nanoseconds in one unit of the fraction
}

const (
	pcapHeaderLen = 24
	pcapRecordLen = 16
)

func (r *Reader) pcapHeader() (*pcap, error) {
	h, err := r.take(pcapHeaderLen)
	if err != nil {
		return nil, fmt.Errorf("not a capture: shorter than the %d bytes of a pcap header", pcapHeaderLen)
	}
	p := &pcap{unit: 1}
	switch {
	case binary.LittleEndian.Uint32(h) == magicMicro:
		r.order, p.unit = binary.LittleEndian, 1000
	case binary.BigEndian.Uint32(h) == magicMicro:
		r.order, p.unit = binary.BigEndian, 1000
	case binary.LittleEndian.Uint32(h) == magicNano:
		r.order = binary.LittleEndian
	case binary.BigEndian.Uint32(h) == magicNano:
		r.order = binary.BigEndian
	default:
		return nil, fmt.Errorf("not a capture: it starts with % x, and pcap, pcapng and gzip do not", h[:4])
	}
	if major := r.order.Uint16(h[4:]); major != 2 {
		return nil, fmt.Errorf("pcap version %d, want 2", major)
	}
	// The upper half of the word holds the length of a frame check sequence,
	// which the length of the datagram cuts off in any case.
	p.link = uint16(r.order.Uint32(h[20:]))
	return p, nil
}

func (p *pcap) next(r *Reader, f *Frame) error {
	h, err := r.take(pcapRecordLen)
	if err != nil {
		return err
	}
	sec, frac := r.order.Uint32(h), r.order.Uint32(h[4:])
	captured, original := r.order.Uint32(h[8:]), r.order.Uint32(h[12:])
	// The snapshot length of the header is not held against the record:
	// well-known writers put a wrong one there.
	if captured > bufferSize {
		return fmt.Errorf("a record says that it holds %d bytes, and at most %d are possible", captured, bufferSize)
	}
	if f.Data, err = r.body(int(captured)); err != nil {
		return err
	}
	f.Len = max(int(original), int(captured))
	f.Time = int64(sec)*1e9 + int64(frac)*p.unit
	f.Link, f.Interface, f.Way = p.link, "", Unknown
	return nil
}

// body takes the bytes that a record's header has promised.
func (r *Reader) body(n int) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	b, err := r.take(n)
	if err != nil {
		return nil, cutShort(err)
	}
	return b, nil
}
