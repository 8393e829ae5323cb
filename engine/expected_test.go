package engine

import (
	"net/netip"
	"testing"

	"github.com/ipfw/ipfw/packet"
)

// masters is the kernel of these tests: it knows by whom packets are expected.
type masters map[netip.AddrPort]Ends // by where the packet comes from

func (m masters) find(in *Input) (Ends, bool) {
	e, ok := m[netip.AddrPortFrom(in.Packet.Src, in.Packet.SrcPort)]
	return e, ok
}

func udpEnds(from, to string) Ends {
	return Ends{packet.UDP, netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)}
}

// tftp lets its host and the network behind it ask for files, the host of one port
// by a rule that names no data.
func tftp(t testing.TB) *Policy {
	inside := addrs(t, "10.1.0.0/16", "fd01::/16")
	udp := []uint8{packet.UDP}
	return &Policy{Rules: []Rule{
		{Name: "other", Action: Bypass, Out: true, Selector: Selector{Protocols: udp, LocalPorts: ports(4444), RemotePorts: ports(69)}},
		{Name: "ask", Action: Bypass, Out: true, Selector: Selector{Protocols: udp, RemotePorts: ports(69)}},
		{Name: "ask-through", Action: Bypass, Forward: true, OpenedBy: OpenedByLocal, Selector: Selector{Protocols: udp, Local: inside, RemotePorts: ports(69)}},
		{Name: "data", Action: Bypass, In: true, Forward: true, Selector: Selector{Protocols: udp, RelatedTo: []string{"ask", "ask-through"}}},
	}}
}

// expect judges a packet that the kernel says to be expected.
func (b *bench) expect(line string) Result {
	b.Helper()
	in := b.input(line)
	in.Expected, in.Offloadable = true, true
	return b.Judge(&in)
}

// more judges a packet of a flow that the kernel knows to have passed.
func (b *bench) more(line string) Result {
	b.Helper()
	in := b.input(line)
	in.Tracked, in.Offloadable = true, true
	return b.Judge(&in)
}

func (b *bench) expecting(p *Policy, m masters) *bench {
	b.Engine = New(p, Options{Master: m.find, IsLocal: func(a netip.Addr) bool { return a == netip.MustParseAddr("192.0.2.1") }})
	return b
}

// Data passes where a named rule has let its master through, and only then.
func TestExpected(t *testing.T) {
	m := masters{}
	for from, e := range map[string]Ends{
		"198.51.100.7:40000":   udpEnds("192.0.2.1:3000", "198.51.100.7:69"),
		"198.51.100.7:40001":   udpEnds("192.0.2.1:4444", "198.51.100.7:69"), // by rule "other"
		"198.51.100.7:40002":   udpEnds("192.0.2.1:3001", "198.51.100.7:69"), // nobody has seen it
		"198.51.100.7:40003":   udpEnds("10.1.0.5:3000", "198.51.100.7:69"),
		"[2001:db8::7]:40000":  udpEnds("[2001:db8::1]:3000", "[2001:db8::7]:69"),
		"[2001:db8::7]:40003":  udpEnds("[fd01::5]:3000", "[2001:db8::7]:69"),
		"192.0.2.1:3005":       udpEnds("192.0.2.1:3000", "198.51.100.7:69"),
		"198.51.100.250:40000": udpEnds("192.0.2.1:3000", "198.51.100.7:69"),    // who says so is the kernel
		"198.51.100.7:41000":   udpEnds("198.51.100.7:40000", "192.0.2.1:3000"), // of data itself
	} {
		m[netip.MustParseAddrPort(from)] = e
	}
	b := newBench(t, tftp(t)).expecting(tftp(t), m)
	asks := []string{
		"out udp 192.0.2.1:3000 -> 198.51.100.7:69", "out udp 192.0.2.1:4444 -> 198.51.100.7:69", "forward udp 10.1.0.5:3000 -> 198.51.100.7:69",
		"out udp [2001:db8::1]:3000 -> [2001:db8::7]:69", "forward udp [fd01::5]:3000 -> [2001:db8::7]:69",
	}
	datas := map[string]bool{
		"in udp 198.51.100.7:40000 -> 192.0.2.1:3000":       true,
		"in udp 198.51.100.7:40001 -> 192.0.2.1:4444":       false,
		"in udp 198.51.100.7:40002 -> 192.0.2.1:3001":       false,
		"forward udp 198.51.100.7:40003 -> 10.1.0.5:3000":   true,
		"in udp [2001:db8::7]:40000 -> [2001:db8::1]:3000":  true,
		"forward udp [2001:db8::7]:40003 -> [fd01::5]:3000": true,
		"in udp 198.51.100.7:49999 -> 192.0.2.1:3000":       false, // the kernel does not know by whom
		"out udp 192.0.2.1:3005 -> 198.51.100.7:40000":      false, // another direction
		"in tcp 198.51.100.7:40000 -> 192.0.2.1:3000":       false, // another protocol
	}
	for line := range datas {
		if r := b.expect(line); r.Verdict != Discard {
			t.Errorf("%s: passes before anybody has asked", line)
		}
	}
	for _, line := range asks {
		if r := b.see(line); r.Verdict != Bypass {
			t.Fatalf("%s: %v", line, r.Reason)
		}
	}
	for line := range datas {
		if r := b.see(line); r.Verdict != Discard {
			t.Errorf("%s: passes, though the kernel does not say that it is expected", line)
		}
	}
	for line, passes := range datas {
		if r := b.expect(line); (r.Verdict == Bypass) != passes || passes && (!r.NewFlow || r.Offload == 0) {
			t.Errorf("%s: %v (%v), new %v, offload %d", line, r.Verdict, r.Reason, r.NewFlow, r.Offload)
		}
	}
	if r := b.expect("in udp 198.51.100.7:41000 -> 192.0.2.1:3000"); r.Verdict != Discard {
		t.Error("what is expected of data passes, and no rule is related to the rule for data")
	}
	// An answer, then more of it, which is not expected any more.
	b.want(b.see("out udp 192.0.2.1:3000 -> 198.51.100.7:40000"), Bypass, ReasonFlow)
	b.want(b.more("in udp 198.51.100.7:40000 -> 192.0.2.1:3000"), Bypass, ReasonFlow)
}

// A policy that does not let the master through by a named rule ends the data, and
// one that does lets it go on, though the master is over.
func TestExpectedAfterReload(t *testing.T) {
	const ask, data = "out udp 192.0.2.1:3000 -> 198.51.100.7:69", "in udp 198.51.100.7:40000 -> 192.0.2.1:3000"
	m := masters{netip.MustParseAddrPort("198.51.100.7:40000"): udpEnds("192.0.2.1:3000", "198.51.100.7:69")}
	without := func(name string, change func(*Rule)) *Policy {
		p := tftp(t)
		for i := range p.Rules {
			if p.Rules[i].Name == name {
				change(&p.Rules[i])
			}
		}
		return p
	}
	for name, row := range map[string]struct {
		p      *Policy
		passes bool
	}{
		"the same":                {tftp(t), true},
		"the master is discarded": {without("ask", func(r *Rule) { r.Action = Discard }), false},
		"by a rule before":        {without("other", func(r *Rule) { r.LocalPorts = nil }), false},
		"by another name":         {without("ask", func(r *Rule) { r.Name = "asks" }), false},
		"data is discarded":       {without("data", func(r *Rule) { r.Action = Discard }), false},
		"data of others":          {without("data", func(r *Rule) { r.RelatedTo = []string{"other"} }), false},
	} {
		for _, over := range []bool{false, true} {
			b := newBench(t, tftp(t)).expecting(tftp(t), m)
			b.want(b.see(ask), Bypass, ReasonRule)
			b.want(b.expect(data), Bypass, ReasonRule)
			for range 10 { // until nobody remembers that it was asked
				b.now += 20 * second
				b.want(b.more(data), Bypass, ReasonFlow)
				b.Expire(b.now)
			}
			if over && b.flowCount() != 1 {
				t.Fatalf("%d flows", b.flowCount())
			}
			if !over {
				b.see(ask)
			}
			b.Reload(row.p)
			if r := b.more(data); (r.Verdict == Bypass) != row.passes {
				t.Errorf("%s, master over %v: %v (%v)", name, over, r.Verdict, r.Reason)
			}
		}
	}
	// What is expected after the reload is held against the new policy, though the
	// master has not been heard since.
	for _, row := range []struct {
		p      *Policy
		passes bool
	}{{tftp(t), true}, {without("ask", func(r *Rule) { r.Action = Discard }), false}} {
		b := newBench(t, tftp(t)).expecting(tftp(t), m)
		b.see(ask)
		b.Reload(row.p)
		if r := b.expect(data); (r.Verdict == Bypass) != row.passes {
			t.Errorf("%v (%v), want %v", r.Verdict, r.Reason, row.passes)
		}
	}
}

// A master is not one any more when its time is over, when a policy has cut it, and
// where its connection is half seen.
func TestExpectedOfNoMaster(t *testing.T) {
	const ask, data = "out udp 192.0.2.1:3000 -> 198.51.100.7:69", "in udp 198.51.100.7:40000 -> 192.0.2.1:3000"
	m := masters{netip.MustParseAddrPort("198.51.100.7:40000"): udpEnds("192.0.2.1:3000", "198.51.100.7:69")}
	b := newBench(t, tftp(t)).expecting(tftp(t), m)
	b.see(ask)
	b.now += timeoutUDP + 1
	b.want(b.expect(data), Discard, ReasonDefault)

	b = newBench(t, tftp(t)).expecting(&Policy{Rules: append(tftp(t).Rules[3:], Rule{Name: "ask", Action: Bypass, Out: true, HalfOpen: true})},
		masters{netip.MustParseAddrPort("198.51.100.7:40000"): {packet.TCP, netip.MustParseAddrPort("192.0.2.1:3000"), netip.MustParseAddrPort("198.51.100.7:21")}})
	b.want(b.see("in tcp 198.51.100.7:21 -> 192.0.2.1:3000 syn,ack"), Bypass, ReasonRule)
	b.want(b.expect(data), Discard, ReasonDefault)
}

// Who makes data expect data, and so on, comes to an end.
func TestExpectedInLine(t *testing.T) {
	p := &Policy{Rules: []Rule{
		{Name: "ask", Action: Bypass, In: true, Selector: Selector{LocalPorts: ports(69)}},
		{Name: "data", Action: Bypass, In: true, Selector: Selector{RelatedTo: []string{"ask", "data"}}},
	}}
	m := masters{}
	b := newBench(t, p).expecting(p, m)
	b.want(b.see("in udp 198.51.100.7:40000 -> 192.0.2.1:69"), Bypass, ReasonRule)
	last := udpEnds("198.51.100.7:40000", "192.0.2.1:69")
	for i := range 10 {
		from := netip.AddrPortFrom(netip.MustParseAddr("198.51.100.7"), uint16(40001+i))
		m[from] = last
		last = Ends{packet.UDP, from, netip.MustParseAddrPort("192.0.2.1:3000")}
		r := b.expect("in udp " + from.String() + " -> 192.0.2.1:3000")
		if want := i < mastersInLine; (r.Verdict == Bypass) != want {
			t.Errorf("number %d: %v (%v)", i+1, r.Verdict, r.Reason)
		}
	}
}

// A daemon that takes over knows of what an earlier one has let through what the
// kernel tells, and that only where the policy asks for no more.
func TestExpectedBefore(t *testing.T) {
	m := masters{
		netip.MustParseAddrPort("198.51.100.7:40000"): udpEnds("192.0.2.1:3000", "198.51.100.7:69"),
		netip.MustParseAddrPort("198.51.100.7:40001"): udpEnds("192.0.2.1:4444", "198.51.100.7:69"),
		netip.MustParseAddrPort("198.51.100.7:40003"): udpEnds("10.1.0.5:3000", "198.51.100.7:69"),
	}
	named, marked := tftp(t), tftp(t)
	named.Rules = append(named.Rules, Rule{Name: "wan", Out: true, Selector: Selector{Interfaces: []string{"wan0"}}})
	marked.Rules = append(marked.Rules, Rule{Name: "fast", Out: true, Selector: Selector{DSCP: []uint8{46}}})
	for _, row := range []struct {
		p      *Policy
		line   string
		passes bool
	}{
		{tftp(t), "in udp 198.51.100.7:40000 -> 192.0.2.1:3000", true},
		{tftp(t), "forward udp 198.51.100.7:40003 -> 10.1.0.5:3000", true},
		{tftp(t), "in udp 198.51.100.7:40001 -> 192.0.2.1:4444", false},
		{tftp(t), "in udp 198.51.100.7:40002 -> 192.0.2.1:3000", false},
		{named, "in udp 198.51.100.7:40000 -> 192.0.2.1:3000", false},
		{marked, "in udp 198.51.100.7:40000 -> 192.0.2.1:3000", false},
	} {
		b := newBench(t, row.p).expecting(row.p, m)
		if r := b.more(row.line); (r.Verdict == Bypass) != row.passes {
			t.Errorf("%s: %v (%v), want %v", row.line, r.Verdict, r.Reason, row.passes)
		}
	}
}

// A packet is not taken for one that is expected because the one before it was, in
// the same Input.
func TestExpectedByTheOneBefore(t *testing.T) {
	const ask, data = "out udp 192.0.2.1:3000 -> 198.51.100.7:69", "in udp 198.51.100.7:40000 -> 192.0.2.1:3000"
	m := masters{netip.MustParseAddrPort("198.51.100.7:40000"): udpEnds("192.0.2.1:3000", "198.51.100.7:69")}
	all, none := tftp(t), tftp(t)
	all.Rules[3].Protocols = nil
	none.Rules = append(none.Rules[:3:3], Rule{Name: "all", Action: Bypass, In: true})
	b := newBench(t, all).expecting(all, m)
	b.see(ask)
	var in Input
	next := func(line string, expected bool) Result {
		t.Helper()
		p := b.input(line)
		in.Packet, in.Dir, in.Now, in.Expected = p.Packet, p.Dir, p.Now, expected
		return b.Judge(&in)
	}
	for _, line := range []string{"in udp 203.0.113.9:40000 -> 192.0.2.1:3000", "in icmp 13 203.0.113.9 -> 192.0.2.1",
		"in icmp echo-reply 203.0.113.9 -> 192.0.2.1", "in icmp echo-request 203.0.113.9 -> 192.0.2.1", "in tcp 203.0.113.9:1 -> 192.0.2.1:1 syn,ack"} {
		b.want(next(data, true), Bypass, ReasonRule)
		if r := next(line, false); r.Verdict != Discard {
			t.Errorf("%s: %v (%v)", line, r.Verdict, r.Reason)
		}
		b.Engine = New(all, b.options)
		b.see(ask)
	}
	// Nor is what another policy lets pass in between.
	b.want(next(data, true), Bypass, ReasonRule)
	b.Reload(none)
	b.want(next("in udp 203.0.113.9:40000 -> 192.0.2.1:3000", false), Bypass, ReasonRule)
	b.Reload(all)
	if r := next("in udp 203.0.113.9:40000 -> 192.0.2.1:3000", false); r.Verdict != Discard {
		t.Errorf("%v (%v)", r.Verdict, r.Reason)
	}
}
