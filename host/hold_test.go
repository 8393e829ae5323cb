package host

import (
	"net/netip"
	"testing"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
)

// The packets that wait are bounded in number, bytes and time, for one peer and
// in all, and whoever waits asks once in a while.
func TestHold(t *testing.T) {
	h := newHold()
	in := engine.Input{Now: 1, Packet: *testPacket(t, packet.UDP, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), 1, 2)}
	n := need{"x", netip.MustParseAddr("192.0.2.2")}
	for i := range holdPackets + 5 {
		ask, ok := h.add(n, &in)
		if ask != (i == 0) || ok != (i < holdPackets) {
			t.Fatalf("packet %d: ask %v, kept %v", i, ask, ok)
		}
	}
	in.Now += askAgain
	if ask, _ := h.add(n, &in); !ask {
		t.Error("the key exchange is not asked again")
	}
	yes := func(*heldPacket) bool { return true }
	if got := h.take("y", yes); len(got) != 0 {
		t.Errorf("%d packets of another block", len(got))
	}
	if got := h.take("x", func(*heldPacket) bool { return false }); len(got) != 0 {
		t.Errorf("%d packets for which there is no SA", len(got))
	}
	list := h.take("x", yes)
	if len(list) != holdPackets || h.waiting() != 0 || h.bytes != 0 {
		t.Errorf("%d packets taken, %d and %d bytes left", len(list), h.waiting(), h.bytes)
	}

	// Many peers at once.
	a := netip.MustParseAddr("10.0.0.0")
	kept := 0
	for range maxLines + 10 {
		a = a.Next()
		if _, ok := h.add(need{"x", a}, &in); ok {
			kept++
		}
	}
	if kept > holdAllPackets || kept != h.waiting() {
		t.Errorf("%d packets kept, %d wait", kept, h.waiting())
	}
	h.expire(in.Now + holdTime)
	if h.waiting() != 0 || h.bytes != 0 || len(h.lines) != 0 {
		t.Errorf("after their time %d packets, %d bytes, %d lines are left", h.waiting(), h.bytes, len(h.lines))
	}
}
