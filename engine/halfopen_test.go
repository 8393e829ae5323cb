package engine

import (
	"testing"
)

// A router that sees the answers only lets them pass where its policy says
// half_open, in a rule or by default, and nowhere else.
func TestHalfOpen(t *testing.T) {
	const (
		from4     = "forward tcp 10.2.0.10:80 -> 10.1.0.10:40000"
		from6     = "forward tcp [2001:db8:2::a]:80 -> [2001:db8:1::a]:40000"
		in4, out4 = "in tcp 10.2.0.10:80 -> 10.1.0.10:40000", "out tcp 10.2.0.10:80 -> 10.1.0.10:40000"
	)
	byDefault := &Policy{Default: [directionCount]Verdict{Forward: Bypass, Out: Bypass}, HalfOpen: true}
	rule := func(r Rule) *Policy {
		r.Name, r.Action = "through", Bypass
		return &Policy{Rules: []Rule{r}, Default: byDefault.Default}
	}
	local := Selector{Local: addrs(t, "10.1.0.0/16", "2001:db8:1::/48"), Remote: addrs(t, "10.2.0.0/16", "2001:db8:2::/48")}
	for _, row := range []struct {
		verdict Verdict
		p       *Policy
		line    string
	}{
		{Bypass, byDefault, from4}, {Bypass, byDefault, from6}, {Bypass, byDefault, in4},
		{Discard, byDefault, out4}, // the connection would have been opened from outside
		{Discard, &Policy{Default: byDefault.Default}, from4}, {Discard, &Policy{Default: byDefault.Default}, in4},
		{Bypass, rule(Rule{Forward: true, HalfOpen: true}), from4}, {Bypass, rule(Rule{Forward: true, HalfOpen: true}), from6},
		{Discard, rule(Rule{Forward: true}), from4},
		{Bypass, rule(Rule{Forward: true, HalfOpen: true, OpenedBy: OpenedByLocal, Selector: local}), from4},
		{Bypass, rule(Rule{Forward: true, HalfOpen: true, OpenedBy: OpenedByLocal, Selector: local}), from6},
		{Discard, rule(Rule{Forward: true, HalfOpen: true, OpenedBy: OpenedByRemote, Selector: local}), from4},
		{Bypass, rule(Rule{In: true, HalfOpen: true}), out4}, {Discard, rule(Rule{In: true, HalfOpen: true}), in4},
	} {
		for _, f := range []uint8{synAck, rst, rstAck} {
			b := newBench(t, row.p)
			r := b.see(row.line, flags(f))
			if r.Verdict != row.verdict || r.Verdict == Discard && r.Reason != ReasonTCPState {
				t.Errorf("%s, flags %#x: %v (%v), want %v", row.line, f, r.Verdict, r.Reason, row.verdict)
			}
			if n := b.flows.len(); (n == 1) != (row.verdict == Bypass && f == synAck) {
				t.Errorf("%s, flags %#x: %d flows", row.line, f, n)
			}
			if row.verdict == Bypass && f == synAck { // and so does what follows
				b.want(b.see(row.line, flags(ack), data(100)), Bypass, ReasonFlow)
				b.now += timeoutTCPHalf - 1
				b.want(b.see(row.line, flags(ack), data(100)), Bypass, ReasonFlow)
				b.now += timeoutTCPHalf + 1 // not for five days
				if n := b.flowCount(); n != 0 {
					t.Errorf("%s: the flow is remembered", row.line)
				}
			}
		}
	}
}

func (b *bench) flowCount() (n int) {
	b.Flows(b.now, func(FlowInfo) bool { n++; return true })
	return n
}

// A reload that takes half_open away cuts what it had let pass, and leaves the
// connections alone of which both sides have been heard.
func TestHalfOpenReload(t *testing.T) {
	p := &Policy{Default: [directionCount]Verdict{Forward: Bypass}, HalfOpen: true}
	without := &Policy{Default: p.Default}
	const to, from = "forward tcp 10.1.0.10:40000 -> 10.2.0.10:80", "forward tcp 10.2.0.10:80 -> 10.1.0.10:40000"
	b := newBench(t, p)
	b.see(from, flags(synAck))
	b.Reload(without)
	if r := b.see(from, flags(synAck)); r.Verdict != Discard {
		t.Errorf("%v (%v)", r.Verdict, r.Reason)
	}
	b = newBench(t, p)
	b.see(from, flags(synAck))
	b.see(to, flags(ack))
	b.now += timeoutTCPHalf + second
	b.Reload(without)
	b.want(b.see(from, flags(ack), data(10)), Bypass, ReasonFlow)
}
