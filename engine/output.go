package engine

import (
	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
)

// Output is what becomes of a packet beside its verdict. A worker keeps one
// and hands it to Process again and again; what it holds is valid until then.
type Output struct {
	// Replace is the packet that goes on in place of the one judged.
	Replace []byte
	// Send are datagrams to send in place of the packet judged, which is
	// dropped: sealed, complete, and none longer than the path allows
	// unless it may be fragmented on the way.
	Send [][]byte

	sa      *esp.SA // that sealed Replace or Send
	inner   Input   // the packet that came out of an SA
	buf     []byte
	segment packet.Segmenter
}

// Opened is the packet that came out of an SA, as it was judged; only after
// Process has replaced an ESP or AH packet.
func (o *Output) Opened() *Input { return &o.inner }

// Narrow tells the SA that sealed the packet that the route to its far end
// carries only datagrams of mtu bytes.
func (o *Output) Narrow(mtu int, now int64) {
	if o.sa != nil {
		o.sa.Narrow(mtu, now)
	}
}

func (o *Output) reset() {
	o.sa = nil
	o.Replace, o.Send = nil, o.Send[:0]
	o.buf = o.buf[:0]
}

// room makes n bytes of buffer. What was handed out before stays where it is.
func (o *Output) room(n int) []byte {
	if cap(o.buf)-len(o.buf) < n {
		o.buf = make([]byte, 0, max(2*cap(o.buf), n, 1<<17))
	}
	start := len(o.buf)
	o.buf = o.buf[:start+n]
	return o.buf[start : start+n : start+n]
}
