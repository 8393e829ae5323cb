package engine

import (
	"net/netip"
	"testing"

	"github.com/ipfw/ipfw/packet"
)

// offer judges a packet that the kernel could answer for in future.
func (b *bench) offer(line string, changes ...func(*Input)) Result {
	b.Helper()
	in := b.input(line)
	in.Offloadable = true
	for _, c := range changes {
		c(&in)
	}
	return b.Judge(&in)
}

func tracked(in *Input)  { in.Tracked = true }
func replying(in *Input) { in.Reply = true }
func sequence(n uint32) func(*Input) {
	return func(in *Input) { in.Packet.Seq = n }
}

// Which packets make the kernel answer for the rest of their flow.
func TestOffload(t *testing.T) {
	p := webServer(t)
	p.Rules = append(p.Rules,
		Rule{Name: "sctp", Action: Bypass, In: true, Selector: Selector{Protocols: []uint8{packet.SCTP}}},
		Rule{Name: "udp", Action: Bypass, In: true, Selector: Selector{Protocols: []uint8{packet.UDP}}},
		Rule{Name: "esp", Action: Bypass, In: true, Selector: Selector{Protocols: []uint8{packet.ESP}}},
		Rule{Name: "others", Action: Bypass, In: true, Selector: Selector{ICMP: []ICMPSel{{packet.ICMP, 13, -1}}}})
	for _, row := range []struct {
		offload bool
		line    string
	}{
		{true, "in tcp 203.0.113.9:40000 -> 198.51.100.10:443"},
		{true, "in tcp 192.0.2.7:40000 -> 198.51.100.10:22"},
		{true, "out udp 198.51.100.10:40000 -> 203.0.113.9:53"},
		{true, "in udp 203.0.113.9:40000 -> 198.51.100.10:53"},
		{true, "in icmp 203.0.113.9 -> 198.51.100.10"},
		{true, "in esp 203.0.113.9 -> 198.51.100.10"},
		{true, "forward udp 10.1.0.5:40000 -> 192.0.2.53:53"},

		{false, "in tcp 203.0.113.9:40000 -> 198.51.100.10:81"},
		{false, "out tcp 198.51.100.10:40000 -> 203.0.113.9:23"},
		{false, "in tcp 10.0.0.7:40000 -> 10.0.0.5:445"},
		{false, "in tcp 10.0.0.7:40000 -> 10.0.0.5:445 protected lan"},
		{false, "out tcp 10.0.0.5:445 -> 10.0.0.7:40000"},
		{false, "in sctp 203.0.113.9:40000 -> 198.51.100.10:53"}, // not every kernel tells its ports
		{false, "in icmp timestamp 203.0.113.9 -> 198.51.100.10"},
		{false, "in tcp 203.0.113.9:40000 -> 198.51.100.10:443 fragment"},
	} {
		b := newBench(t, p)
		if got := b.offer(row.line).Offload; (got != 0) != row.offload || got != 0 && got != b.Generation() {
			t.Errorf("%s: offload %d, want %v", row.line, got, row.offload)
		}
		in := b.input(row.line)
		if r := b.Judge(&in); r.Offload != 0 {
			t.Errorf("%s: offloaded though the kernel cannot", row.line)
		}
	}
}

// After a reload the next packet of an offloaded flow meets the new policy, and
// says so by the generation.
func TestOffloadAndReload(t *testing.T) {
	b := newBench(t, webServer(t))
	const line = "in tcp 203.0.113.9:40000 -> 198.51.100.10:443"
	first := b.offer(line).Offload
	b.Reload(webServer(t))
	r := b.offer(line+" established", tracked)
	b.want(r, Bypass, ReasonFlow)
	if r.Offload == first || r.Offload != b.Generation() {
		t.Errorf("generation %d, then %d; the engine's is %d", first, r.Offload, b.Generation())
	}
	shut := webServer(t)
	shut.Rules = shut.Rules[1:]
	b.Reload(shut)
	if r := b.offer(line+" established", tracked); r.Verdict != Discard || r.Offload != b.Generation() {
		t.Errorf("under a policy that forbids the flow: %v, offload %d", r.Verdict, r.Offload)
	}
}

func carried(from, to string) Carried {
	return Carried{Protocol: packet.TCP, Source: netip.MustParseAddrPort(from), Dest: netip.MustParseAddrPort(to), Counted: true, State: 3, Replied: true}
}

// rule gives a rule's counters.
func (b *bench) rule(name string) RuleStats {
	st := b.Stats()
	for i, r := range b.Policy().Rules {
		if r.Name == name {
			return st.Rules[i]
		}
	}
	b.Fatalf("no rule %s", name)
	return RuleStats{}
}

// What the kernel has carried counts once, for the rule and for the flow,
// whatever comes up between, and over a reload.
func TestCarriedCounts(t *testing.T) {
	for _, ends := range [][2]string{
		{"203.0.113.9:40000", "198.51.100.10:443"}, {"192.0.2.9:40000", "198.51.100.10:443"},
		{"[2001:db8::9]:40000", "[2001:db8::10]:443"},
	} {
		b := newBench(t, webServer(t))
		line := "in tcp " + ends[0] + " -> " + ends[1]
		b.offer(line)
		syn := b.rule("web")
		c := carried(ends[0], ends[1])
		tell := func(packets, bytes [2]uint64, want RuleStats) {
			t.Helper()
			c.Packets, c.Bytes = packets, bytes
			b.Carried(b.now, &c)
			if got := b.rule("web"); got != want {
				t.Errorf("%v %v: rule has %+v, want %+v", packets, bytes, got, want)
			}
		}
		tell([2]uint64{1, 0}, [2]uint64{syn.Bytes, 0}, syn) // no news
		tell([2]uint64{11, 5}, [2]uint64{1000, 500}, RuleStats{16, 1500, 1})
		tell([2]uint64{11, 5}, [2]uint64{1000, 500}, RuleStats{16, 1500, 1})
		b.Reload(webServer(t))
		up := b.offer(line+" established", tracked)
		b.want(up, Bypass, ReasonFlow)
		tell([2]uint64{12, 5}, [2]uint64{1000 + syn.Bytes, 500}, RuleStats{17, 1500 + syn.Bytes, 1})
		tell([2]uint64{10, 4}, [2]uint64{10, 4}, RuleStats{17, 1500 + syn.Bytes, 1}) // never back
		for f := range b.flowsNow() {
			if f.Packets != [2]uint64{12, 5} || f.Bytes != [2]uint64{1000 + syn.Bytes, 500} || f.State != "established" || !f.Offloaded {
				t.Errorf("flow: %+v", f)
			}
		}
		c.Ended = true
		tell([2]uint64{20, 9}, [2]uint64{5000, 900}, RuleStats{29, 5900, 1})
		if n := b.Stats().Flows; n != 0 {
			t.Errorf("%d flows after the end", n)
		}
		if n := b.Stats().Reasons[ReasonFlow]; n != 28 {
			t.Errorf("%d packets of flows, want 28", n)
		}
	}
}

func (b *bench) flowsNow() func(func(FlowInfo) bool) {
	return func(yield func(FlowInfo) bool) { b.Flows(b.now, yield) }
}

// Of a flow that an earlier daemon let through, only what is carried from now
// on counts.
func TestCarriedOfATakenOverFlow(t *testing.T) {
	b := newBench(t, webServer(t))
	r := b.offer("in tcp 203.0.113.9:40000 -> 198.51.100.10:443 established", tracked)
	b.want(r, Bypass, ReasonRule)
	before := b.rule("web")
	c := carried("203.0.113.9:40000", "198.51.100.10:443")
	c.Packets, c.Bytes = [2]uint64{1000, 900}, [2]uint64{1e6, 1e5}
	b.Carried(b.now, &c)
	if got := b.rule("web"); got != before {
		t.Errorf("the first word of the kernel changed the rule from %+v to %+v", before, got)
	}
	c.Packets[0] += 3
	c.Bytes[1] += 70
	b.Carried(b.now, &c)
	if got, want := b.rule("web"), (RuleStats{before.Packets + 3, before.Bytes + 70, 0}); got != want {
		t.Errorf("rule has %+v, want %+v", got, want)
	}
}

// A connection that comes before the kernel has told the end of one with the
// same ends is a flow of its own: policy is asked, limits count it, and what
// the kernel has carried of the first still counts.
func TestCarriedAfterReuse(t *testing.T) {
	b := newBench(t, webServer(t))
	const line = "in tcp 203.0.113.9:40000 -> 198.51.100.10:443"
	r := b.offer(line, sequence(100))
	if !r.NewFlow {
		t.Fatal("not a new flow")
	}
	if r = b.offer(line, sequence(100)); r.NewFlow {
		t.Error("a SYN sent again opens a new flow")
	}
	n := b.rule("web").Bytes / 2 // of a SYN
	for i := range 3 {
		r = b.offer(line, sequence(uint32(200+i)))
		if !r.NewFlow || r.Offload == 0 {
			t.Errorf("another connection: %+v", r)
		}
	}
	c := carried("203.0.113.9:40000", "198.51.100.10:443")
	c.Ended = true
	c.Packets, c.Bytes = [2]uint64{12, 10}, [2]uint64{2*n + 1000, 500}
	b.Carried(b.now, &c)
	for range 3 {
		if b.Stats().Flows != 1 {
			t.Fatal("the end of an earlier connection ended the last")
		}
		c.Packets, c.Bytes = [2]uint64{2, 0}, [2]uint64{n + 100, 0}
		b.Carried(b.now, &c)
	}
	if got, want := b.rule("web"), (RuleStats{25 + 3, 5*n + 1800, 4}); got != want {
		t.Errorf("after the end of all: %+v, want %+v", got, want)
	}
	if b.Stats().Flows != 0 {
		t.Error("flows are left")
	}

	// UDP has no openings: a second without the kernel's mark is one.
	const udp = "out udp 198.51.100.10:40000 -> 203.0.113.9:53"
	b.offer(udp)
	b.now += second / 2
	if r := b.offer(udp); r.NewFlow {
		t.Error("a packet queued before the mark opens a flow")
	}
	b.now += 2 * second
	if r := b.offer(udp, tracked); r.NewFlow {
		t.Error("a packet of a flow that the kernel knows opens one")
	}
	b.now += 2 * second
	if r := b.offer(udp); !r.NewFlow {
		t.Error("a packet of a flow that the kernel has forgotten opens none")
	}
}

// Offloaded flows are the first to go when the table is full, and a packet of
// theirs that comes up after all passes.
func TestOffloadedFlowsDoNotFillTheTable(t *testing.T) {
	b := newBench(t, webServer(t))
	b.Engine = New(webServer(t), Options{MaxFlows: flowShards}) // one in a shard
	for i := range 4 * flowShards {
		line := "in tcp " + netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}).String() + ":40000 -> 198.51.100.10:443"
		b.want(b.offer(line), Bypass, ReasonRule)
		b.offer(line+" established", tracked, replying)
	}
	for i := range 4 * flowShards {
		line := "in tcp " + netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)}).String() + ":40000 -> 198.51.100.10:443 established"
		if r := b.offer(line, tracked); r.Verdict != Bypass || r.NewFlow || r.Offload == 0 {
			t.Fatalf("flow %d: %+v", i, r)
		}
	}
	if n := b.Stats().Flows; n > flowShards {
		t.Errorf("%d flows are remembered, the bound is %d", n, flowShards)
	}
}

// An error about a flow that the kernel knows to have passed, and the engine
// has forgotten, passes where the flow would, whichever side opened it.
func TestRelatedToAForgottenFlow(t *testing.T) {
	for _, row := range []struct {
		verdict       Verdict
		dir           string
		quoted        string // the packet that the error is about
		answer        bool   // ... runs against the direction of the flow's opening
		from, to, why string
	}{
		{Bypass, "in", "out udp 198.51.100.10:40000 -> 203.0.113.9:7", false, "192.0.2.1", "198.51.100.10", "a flow of ours"},
		{Bypass, "in", "out tcp 198.51.100.10:443 -> 203.0.113.9:40000", true, "192.0.2.1", "198.51.100.10", "our answer on the web"},
		{Discard, "in", "out tcp 198.51.100.10:5432 -> 203.0.113.9:40000", true, "192.0.2.1", "198.51.100.10", "our answer on a shut port"},
		{Discard, "in", "out tcp 198.51.100.10:40000 -> 203.0.113.9:23", false, "192.0.2.1", "198.51.100.10", "a flow that policy forbids"},
		{Bypass, "forward", "forward udp 10.1.0.5:40000 -> 192.0.2.53:53", false, "192.0.2.1", "10.1.0.5", "a flow that crosses"},
		{Discard, "forward", "forward udp 10.1.0.5:40000 -> 192.0.2.53:54", false, "192.0.2.1", "10.1.0.5", "another that may not"},
		{Discard, "in", "out tcp 10.0.0.5:445 -> 10.0.0.7:40000", true, "192.0.2.1", "10.0.0.5", "a flow to protect"},
	} {
		b := newBench(t, webServer(t))
		in := b.input(row.dir+" icmp 3/4 "+row.from+" -> "+row.to, func(s *packet.Spec) {
			s.Payload = b.input(row.quoted).Packet.Bytes
		})
		in.Tracked, in.Reply = true, !row.answer
		if r := b.Judge(&in); r.Verdict != row.verdict || row.verdict == Bypass && (r.Reason != ReasonRelated || r.Offload != 0) {
			t.Errorf("about %s: %v (%v)", row.why, r.Verdict, r.Reason)
		}
		in.Tracked = false
		if r := b.Judge(&in); r.Verdict != Discard {
			t.Errorf("about %s that the kernel does not know: %v", row.why, r.Verdict)
		}
	}
}
