package host

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
)

// What is refused and comes again has one event in a minute, with the number of those
// like it; what comes from elsewhere, for elsewhere, for another reason or under another
// policy has its own. It allocates nothing.
func TestRepeatsAreToldOnce(t *testing.T) {
	var r repeats
	in := engine.Input{Dir: engine.In, Now: 5, Packet: packet.Packet{Version: 4, Protocol: packet.TCP, HasPorts: true,
		Src: netip.MustParseAddr("192.0.2.7"), Dst: netip.MustParseAddr("192.0.2.1"), SrcPort: 4000, DstPort: 445}}
	told := func(want bool, left uint64, reason engine.Reason, policy uint32, change func(*engine.Input)) {
		t.Helper()
		x := in
		change(&x)
		if n, ok := r.tell(&x, reason, policy); ok != want || n != left {
			t.Errorf("%v, %d left out; want %v, %d", ok, n, want, left)
		}
	}
	same := func(*engine.Input) {}
	told(true, 0, engine.ReasonClear, 1, same)
	told(false, 0, engine.ReasonClear, 1, same)
	told(false, 0, engine.ReasonClear, 1, func(x *engine.Input) { x.Packet.SrcPort++; x.Now += 59e9 })
	told(true, 0, engine.ReasonClear, 1, func(x *engine.Input) { x.Packet.DstPort++ })
	told(true, 0, engine.ReasonClear, 1, func(x *engine.Input) { x.Packet.Src = netip.MustParseAddr("192.0.2.8") })
	told(true, 0, engine.ReasonNoSA, 1, same)
	told(true, 2, engine.ReasonClear, 1, func(x *engine.Input) { x.Now += repeatEach })
	told(true, 0, engine.ReasonClear, 2, same)
	replay := engine.Reason(0)
	for i := range engine.Reasons {
		if engine.Reason(i).String() == "ipsec-replay" {
			replay = engine.Reason(i)
		}
	}
	told(true, 0, replay, 1, same)
	told(true, 0, replay, 1, same)
	if n := testing.AllocsPerRun(100, func() { in.Now++; r.tell(&in, engine.ReasonClear, 1) }); n != 0 {
		t.Errorf("%.0f allocations", n)
	}
}

// A peer that sends in the clear what is protected, again and again, is one event.
func TestClearTextIsToldOnce(t *testing.T) {
	d := start(t, protectPolicy(0x1001, keyFile(t, "1"), ""))
	s := toPeer("198.51.100.10")
	s.Src = toPeer("203.0.113.9").Dst
	for range 5 {
		if r, _ := d.kernel.packet(t, engine.In, s); r.Reason != engine.ReasonClear {
			t.Fatal(r.Reason)
		}
	}
	d.kernel.packet(t, engine.Out, toPeer("203.0.113.10")) // has an event behind them
	d.waitForMessage(t, KindIPsec, "no SA can be there")
	n := 0
	if err := d.Events(t.Context(), 1000, false, func(e Event) error {
		if e.Reason == engine.ReasonClear.String() {
			n++
		}
		return nil
	}); err != nil || n != 1 {
		t.Errorf("%d events of five packets, %v", n, err)
	}
	e := Event{Kind: KindIPsec, Verdict: "discard", Reason: "clear-text", Count: 4}
	if got := e.String(); !strings.HasSuffix(got, "; 4 more like it since the last are not shown") {
		t.Errorf("event %q", got)
	}
}
