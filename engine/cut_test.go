package engine

import (
	"testing"

	"github.com/ipfw/ipfw/packet"
)

// withoutWeb is the policy with the rule that let the web in changed.
func withoutWeb(t *testing.T, change func(*Rule)) *Policy {
	p := webServer(t)
	p.Rules[0].Action = Discard
	change(&p.Rules[0])
	return p
}

const webLine = "in tcp 203.0.113.9:40000 -> 198.51.100.10:443"

// Of a flow that a new policy cuts in silence the kernel may drop the rest, and
// only of such a one.
func TestCutFlow(t *testing.T) {
	silent := func(*Rule) {}
	for _, row := range []struct {
		what    string
		policy  func(*Rule)
		change  func(*Input)
		reason  Reason
		offload bool
	}{
		{"in silence", silent, tracked, ReasonRule, true},
		{"by default", func(r *Rule) { r.Selector.LocalPorts = ports(80) }, tracked, ReasonDefault, true},
		{"with an answer", func(r *Rule) { r.Reject = true }, tracked, ReasonRule, false},
		{"with an event", func(r *Rule) { r.Log = true }, tracked, ReasonRule, false},
		{"behind an audit rule, which is about new flows", func(r *Rule) { r.Audit = true }, tracked, ReasonDefault, true},
		{"that the kernel does not know", silent, func(*Input) {}, ReasonRule, false},
		{"that the kernel cannot answer for", silent, func(in *Input) { in.Tracked, in.Offloadable = true, false }, ReasonRule, false},
	} {
		b := newBench(t, webServer(t))
		b.offer(webLine)
		b.Reload(withoutWeb(t, row.policy))
		for range 2 {
			r := b.offer(webLine+" established", row.change)
			if r.Verdict != Discard || row.offload && r.Reason != row.reason || r.Offload != 0 && r.Offload != b.Generation() || (r.Offload != 0) != row.offload {
				t.Errorf("%s: %v (%v), offload %d of %d", row.what, r.Verdict, r.Reason, r.Offload, b.Generation())
			}
		}
		if n := b.Stats().Flows; (n != 0) != row.offload {
			t.Errorf("%s: %d flows are known", row.what, n)
		}
		b.Reload(webServer(t))
		if r := b.offer(webLine+" established", tracked); r.Verdict != Bypass {
			t.Errorf("%s: let in again, the flow is %v (%v)", row.what, r.Verdict, r.Reason)
		}
	}
}

// What has come of a cut flow counts once, as discarded, by the rule that cut it;
// what the kernel carried before was not discarded.
func TestCutFlowCounts(t *testing.T) {
	b := newBench(t, webServer(t))
	b.offer(webLine)
	c := carried("203.0.113.9:40000", "198.51.100.10:443")
	tell := func(packets uint64) {
		c.Packets, c.Bytes = [2]uint64{packets, 50}, [2]uint64{packets * 100, 5000}
		b.Carried(b.now, &c)
	}
	tell(50)
	if got := b.rule("web"); got.Packets != 100 || got.Flows != 1 {
		t.Fatalf("%+v", got)
	}
	b.Reload(withoutWeb(t, func(r *Rule) { r.Name = "shut" }))
	tell(60) // ten more had passed before the kernel knew
	if got := b.rule("shut"); got.Packets != 0 {
		t.Errorf("the new rule has discarded %+v", got)
	}
	for range 3 {
		b.offer(webLine+" established", tracked)
	}
	tell(63)
	if got := b.rule("shut").Packets; got != 3 {
		t.Errorf("%d packets discarded, want the 3 that came up", got)
	}
	c.Ended = true
	tell(1063)
	if got, by := b.rule("shut").Packets, b.Stats().Reasons[ReasonRule]; got != 1003 || by != 1003+1 {
		t.Errorf("%d packets discarded, %d decided by rules; want 1003, and 1 more that opened the flow", got, by)
	}
	if n := b.Stats().Flows; n != 0 {
		t.Errorf("%d flows after the end", n)
	}
}

// An ICMP error about a flow that has been cut is no more welcome than the flow.
func TestErrorAboutCutFlow(t *testing.T) {
	for _, early := range []bool{true, false} {
		b := newBench(t, webServer(t))
		b.offer(webLine)
		const answer = "out tcp 198.51.100.10:443 -> 203.0.113.9:40000 established"
		b.offer(answer, tracked, replying)
		about := b.input("in icmp 3/3 192.0.2.1 -> 198.51.100.10", func(s *packet.Spec) {
			s.Payload = b.input(answer).Packet.Bytes
		})
		about.Tracked = true
		before := about
		b.want(b.Judge(&before), Bypass, ReasonRelated)
		b.Reload(withoutWeb(t, func(*Rule) {}))
		if !early {
			b.want(b.offer(webLine+" established", tracked), Discard, ReasonRule)
		}
		b.want(b.Judge(&about), Discard, ReasonDefault)
	}
}
