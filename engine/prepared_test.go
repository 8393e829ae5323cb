package engine

import (
	"net/netip"
	"testing"

	"github.com/ipfw/ipfw/packet"
)

// What a prepared policy would change is what it does change once it is in force:
// the same flows, by the next packet of each.
func TestChangesAreWhatHappens(t *testing.T) {
	rule := func(name string, action Verdict, port uint16) Rule {
		return Rule{Name: name, Action: action, With: "lan", In: true, Selector: Selector{Protocols: []uint8{packet.TCP}, LocalPorts: []PortRange{{port, port}}}}
	}
	a := &Policy{Rules: []Rule{rule("one", Bypass, 1), rule("two", Bypass, 2), rule("three", Bypass, 3)}, Default: [directionCount]Verdict{Out: Bypass}}
	b := &Policy{Rules: []Rule{rule("one", Bypass, 1), rule("three", Protect, 3)}, Default: [directionCount]Verdict{Out: Bypass}}
	e := New(a, Options{})
	input := func(port uint16, flags uint8) *Input {
		raw, err := packet.Build(packet.Spec{Src: netip.MustParseAddr("203.0.113.9"), Dst: netip.MustParseAddr("198.51.100.10"),
			Protocol: packet.TCP, SrcPort: 40000, DstPort: port, TCPFlags: flags, TTL: 64})
		if err != nil {
			t.Fatal(err)
		}
		in := &Input{Dir: In}
		if f := packet.Parse(&in.Packet, raw, len(raw)); f != packet.OK {
			t.Fatal(f)
		}
		return in
	}
	for port := uint16(1); port <= 3; port++ {
		if r := e.Judge(input(port, packet.SYN)); r.Verdict != Bypass {
			t.Fatalf("port %d: %s", port, r.Verdict)
		}
	}
	list := func(p *Prepared) map[uint16]Verdict {
		m := map[uint16]Verdict{}
		e.Changes(p, 0, func(c *Change) bool { m[c.Flow.Dest.Port()] = c.Now.Verdict; return true })
		return m
	}
	p := e.Prepare(b)
	if e.Policy() != a || e.Judge(input(2, packet.ACK)).Verdict != Bypass {
		t.Error("a policy that is prepared only is in force")
	}
	if got := list(p); len(got) != 2 || got[2] != Discard || got[3] != Protect {
		t.Errorf("changes: %v", got)
	}
	if got := list(e.Prepare(a)); len(got) != 0 {
		t.Errorf("changes by the same policy: %v", got)
	}
	e.Put(p)
	if e.Policy() != b || p.Policy() != b {
		t.Error("another policy is in force")
	}
	// Before any packet comes, flows that are cut already are not cut once more.
	if got := list(e.Prepare(b)); len(got) != 0 {
		t.Errorf("changes by the same policy, after Put: %v", got)
	}
	for port, want := range map[uint16]Verdict{1: Bypass, 2: Discard, 3: Discard} { // 3 came in the clear
		if got := e.Judge(input(port, packet.ACK)); got.Verdict != want {
			t.Errorf("port %d: %s, want %s", port, got.Verdict, want)
		}
	}
	if got := p.Ask(input(2, packet.SYN)); got.Verdict != Discard {
		t.Errorf("asked: %s", got.Verdict)
	}
}
