package engine

import (
	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
)

// Output is what becomes of a packet beside its verdict. A worker keeps one
// and hands it to Process again and again; what it holds is valid until then.
type Output struct {
	// Replace is the packet that goes on in place of the one judged: what it
	// was sealed in or opened to, or the datagram whose last missing fragment
	// it was.
	Replace []byte
	// Send are datagrams to send in place of the packet judged, which is
	// dropped: sealed, complete, and none longer than the path allows
	// unless it may be fragmented on the way.
	Send [][]byte
	// Pieces are the fragments that go on in place of the packet judged, in
	// which the last of those came that the datagram was made of.
	Pieces [][]byte
	// Payload, when not 0, is the offset in each datagram of Send of what a
	// UDP socket has to send: all of them are whole ESP packets in UDP.
	Payload int

	sa      *esp.SA // that sealed Replace or Send
	inner   Input   // the packet that came out of an SA
	buf     []byte
	old     []byte // what was buf before Turn
	keep    bool
	segment packet.Segmenter
}

// Keep makes the datagrams of Send stay what they are through further calls of
// Process, until Release: they wait to be sent together.
func (o *Output) Keep() { o.keep = true }

// Release says that all datagrams are sent.
func (o *Output) Release() { o.keep = false }

// Turn says that the datagrams which had been handed out before the last Turn
// are sent: those since then stay until the next one.
func (o *Output) Turn() { o.buf, o.old = o.old[:0], o.buf }

// Opened is the packet that came out of an SA, as it was judged; only after
// Process has replaced an ESP or AH packet.
func (o *Output) Opened() *Input { return &o.inner }

// Sealer is the SA that sealed a packet.
type Sealer struct{ sa *esp.SA }

// Sealer is the SA that sealed what Send and Replace hold.
func (o *Output) Sealer() Sealer { return Sealer{o.sa} }

// Narrow tells the SA that the route to its far end carries only datagrams of
// mtu bytes.
func (s Sealer) Narrow(mtu int, now int64) {
	if s.sa != nil {
		s.sa.Narrow(mtu, now)
	}
}

func (o *Output) reset() {
	o.sa = nil
	o.Replace, o.Pieces, o.Send, o.Payload = nil, nil, o.Send[:0], 0
	if !o.keep {
		o.buf = o.buf[:0]
	}
}

// bufferSize is room for two super-packets of TCP, cut up and sealed, and then
// some: one that is kept and one that comes.
const bufferSize = 1 << 18

// room makes n bytes of buffer. What was handed out before stays where it is.
func (o *Output) room(n int) []byte {
	if cap(o.buf)-len(o.buf) < n {
		o.buf = make([]byte, 0, max(2*cap(o.buf), n, bufferSize))
	}
	start := len(o.buf)
	o.buf = o.buf[:start+n]
	return o.buf[start : start+n : start+n]
}
