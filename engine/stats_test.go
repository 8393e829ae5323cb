package engine

import (
	"testing"

	"github.com/ipfw/ipfw/esp"
)

// TestEachPacketHasOneReason: the reasons add up to the packets that the engine was
// given, those that were merged in one among them, and what has a reason beside
// them is told apart.
func TestEachPacketHasOneReason(t *testing.T) {
	h := newHosts(t, esp.Tunnel).encapsulate()
	sum := func() (n uint64) {
		for _, r := range h.b.Stats().Reasons {
			n += r
		}
		return n
	}
	open := h.packet("out tcp 10.0.0.5:40000 -> 10.0.0.7:445")
	h.bySocket(h.wire(&open, Protect)[0])
	if n := sum(); n != 1 {
		t.Fatalf("one packet has %d reasons", n)
	}

	in := h.packet("in udp 192.0.2.1:500 -> 10.0.0.7:500")
	in.Merged = 4
	h.b.Process(&in, new(Output))
	if n, st := sum(), h.b.Stats(); n != 6 || st.Defaults[In].Packets != 5 {
		t.Errorf("5 packets in one: %d reasons of all 6, the default counts %d", n, st.Defaults[In].Packets)
	}

	in.Merged, in.Again = 0, true
	h.b.Process(&in, new(Output))
	if n, st := sum(), h.b.Stats(); n != 7 || st.Again != 1 || st.Carried != 0 {
		t.Errorf("judged again: %d reasons of 7, %d judged again, %d carried", n, st.Again, st.Carried)
	}

	f := h.packet("in udp 192.0.2.1:500 -> 10.0.0.7:500")
	f.Again = true
	var inner Input
	if r, ok := h.b.inside(&f, h.sa(), open.Packet.Bytes, open.Packet.Len, &inner); !ok || !inner.Again {
		t.Errorf("what came out of a packet that is judged again counts as new: %+v, %+v", r, inner)
	}
}

// sa gives one of b's SAs.
func (h *hosts) sa() *esp.SA {
	for sa := range h.b.options.SAD.All() {
		return sa
	}
	return nil
}
