// Package capture reads capture files for dry runs: pcap and pcapng, plain or
// compressed with gzip, and finds the IP datagram inside each frame.
//
// Formats: draft-ietf-opsawg-pcap, draft-ietf-opsawg-pcapng, and the link
// types of draft-ietf-opsawg-pcaplinktype. A frame is a view into the read
// buffer, so that a file of any size passes through in flat memory.
//
// The reader is ipfw's own, because pcapgo keeps a link type in 8 bits (Linux
// "any" captures are type 276), panics on short pcapng options and allocates
// what a length field asks for. In the tests pcapgo is the twin.
//
// Limits: a record or block that must be read whole may have 1 MiB; the old
// "modified" pcap formats are refused; name resolution, secrets and statistics
// blocks are skipped.
package capture

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Frame is one captured frame.
type Frame struct {
	// Data is what was captured, from the first byte of the link header. It
	// is valid until the next call of Next.
	Data []byte
	// Len is the length of the frame on the wire in bytes; at least
	// len(Data), and more when the capture was cut (its snapshot length).
	Len int
	// Time is when the frame was seen, in nanoseconds since 1970 UTC.
	Time int64
	// Link is the link type, a LINKTYPE_ number of tcpdump.org.
	Link uint16
	// Interface is the name of the interface, when the file tells it.
	Interface string
	// Way says whether the frame was received or sent, when the file tells it.
	Way Way
}

// Way is the direction of a frame as seen by the host that captured it.
type Way uint8

// The ways.
const (
	Unknown  Way = iota
	Received     // addressed to this host, or to a group it may belong to
	Sent         // sent by this host
	Passing      // seen on the wire, between two others
)

// ErrCutShort says that the file ends inside a record: the capturing program
// was stopped, or the copy is not complete. What came before is whole.
var ErrCutShort = errors.New("the capture ends in the middle of a packet")

// bufferSize bounds what must be in memory at once: one record.
const bufferSize = 1 << 20

// Reader reads the frames of one capture.
type Reader struct {
	in      *bufio.Reader
	order   binary.ByteOrder
	pending int // bytes of the last record still to be thrown away
	frames  int
	format  format
}

// format is what differs between pcap and pcapng.
type format interface {
	next(r *Reader, f *Frame) error
}

// NewReader reads the start of a capture and finds out what it is.
func NewReader(in io.Reader) (*Reader, error) {
	r := &Reader{in: bufio.NewReaderSize(in, bufferSize)}
	magic, err := r.in.Peek(4)
	if len(magic) >= 2 && magic[0] == 0x1f && magic[1] == 0x8b { // RFC 1952 section 2.3.1
		zip, err := gzip.NewReader(r.in)
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		r.in = bufio.NewReaderSize(zip, bufferSize)
		magic, err = r.in.Peek(4)
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("gzip: %w", err)
		}
	} else if err != nil && err != io.EOF {
		return nil, err
	}
	if len(magic) < 4 {
		return nil, fmt.Errorf("not a capture: only %d bytes", len(magic))
	}
	if binary.BigEndian.Uint32(magic) == blockSection {
		r.format = new(pcapng)
		return r, nil
	}
	if r.format, err = r.pcapHeader(); err != nil {
		return nil, err
	}
	return r, nil
}

// Next reads the next frame into f. The end of the file is io.EOF; any other
// error is the end as well, and says what was wrong and where.
func (r *Reader) Next(f *Frame) error {
	err := r.format.next(r, f)
	switch {
	case err == nil:
		r.frames++
	case err != io.EOF:
		err = fmt.Errorf("after packet %d: %w", r.frames, err)
	}
	return err
}

// take gives the next n bytes, valid until the next take or skip. No byte at
// all is io.EOF, a few are ErrCutShort.
func (r *Reader) take(n int) ([]byte, error) {
	if err := r.flush(); err != nil {
		return nil, err
	}
	b, err := r.in.Peek(n)
	switch {
	case err == nil:
		r.pending = n
		return b, nil
	case errors.Is(err, io.EOF) && len(b) == 0:
		return nil, io.EOF
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, ErrCutShort
	}
	return nil, err
}

// skip passes over n bytes.
func (r *Reader) skip(n int) error {
	if err := r.flush(); err != nil {
		return err
	}
	r.pending = n
	return r.flush()
}

func (r *Reader) flush() error {
	n, err := r.in.Discard(r.pending)
	r.pending -= n
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrCutShort
	}
	return err
}
