package engine

import (
	"math/rand/v2"
	"testing"

	"github.com/ipfw/ipfw/packet"
)

// slowFlows is the slow twin of flows under a policy that names interfaces: it
// asks every rule about every packet, with the packet's own interfaces.
type slowFlows struct {
	policy *Policy
	flows  map[flowKey]*slowFlow
}

type slowFlow struct {
	q       query // that its opener asked
	opener  uint8
	verdict Verdict
	rule    int32
}

func (s *slowFlows) ask(q *query) (Verdict, int32) {
	i := linear(s.policy, q)
	if i == DefaultRule {
		return s.policy.Default[q.dir], i
	}
	return s.policy.Rules[i].Action, i
}

func (s *slowFlows) judge(in *Input) (Verdict, int32) {
	key, side, _ := flowKeyOf(in)
	f := s.flows[key]
	if f == nil {
		q := queryOf(in)
		v, rule := s.ask(&q)
		if v = slowConform(in, v); v != Discard {
			s.flows[key] = &slowFlow{q, side, v, rule}
		}
		return v, rule
	}
	v, rule := f.verdict, f.rule
	if side == f.opener || v != Protect {
		q := f.q
		q.inIf, q.outIf = in.InIf, in.OutIf
		if side != f.opener {
			q.inIf, q.outIf = in.OutIf, in.InIf
		}
		if v, rule = s.ask(&q); v == Discard {
			return v, rule
		}
		if side == f.opener {
			f.verdict, f.rule = v, rule
		}
	}
	return slowConform(in, v), rule
}

func slowConform(in *Input, v Verdict) Verdict {
	leaves, sealed := in.Dir == Out, in.SA != ""
	if v == Bypass && sealed || v == Protect && leaves == sealed {
		return Discard
	}
	return v
}

// Flows whose packets change interfaces all the time get what policy says of
// each, and it does not matter what came before.
func TestInterfacesAgainstSlowTwin(t *testing.T) {
	changed := 0
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 6))
		p := randomPolicy(r, 1+r.IntN(12))
		for i := range p.Rules {
			rule := &p.Rules[i]
			rule.ICMP, rule.Protocols, rule.Audit = nil, nil, false
			if r.IntN(2) == 0 {
				rule.Interfaces = []string{[]string{"eth0", "eth1", "wg*"}[r.IntN(3)]}
			}
			if !rule.Forward && r.IntN(3) == 0 {
				rule.Action, rule.With = Protect, "x"
			}
		}
		if !p.NamesInterfaces() {
			continue
		}
		e := New(p, Options{Outbound: someSA})
		slow := &slowFlows{p, map[flowKey]*slowFlow{}}
		last := map[flowKey]Verdict{}
		for i := range 3000 {
			var in Input
			v6 := r.IntN(2) == 0
			in.Dir, in.Now = Direction(r.IntN(3)), second
			in.Packet = packet.Packet{Version: 4, Protocol: packet.UDP, HasPorts: true, Len: 100, SrcPort: uint16(r.IntN(3)), DstPort: uint16(r.IntN(3)),
				Src: worldAddr(r, v6), Dst: worldAddr(r, v6)}
			if v6 {
				in.Packet.Version = 6
			}
			if in.Dir != Out {
				in.InIf = worldIfs[r.IntN(len(worldIfs))]
			}
			if in.Dir != In {
				in.OutIf = worldIfs[r.IntN(len(worldIfs))]
			}
			if in.Dir == In && r.IntN(3) == 0 {
				in.SA = "x"
			}
			want, rule := slow.judge(&in)
			got := e.Judge(&in)
			if got.Verdict != want || got.Rule != rule {
				t.Fatalf("seed %d, packet %d: %+v: %v by rule %d (%v), the slow twin says %v by %d", seed, i, in, got.Verdict, got.Rule, got.Reason, want, rule)
			}
			if got.Offload != 0 && want != Bypass {
				t.Fatalf("seed %d, packet %d: offloaded, and %v", seed, i, want)
			}
			key, _, _ := flowKeyOf(&in)
			if was, ok := last[key]; ok && was != want && slow.flows[key] != nil {
				changed++
			}
			last[key] = want
		}
	}
	if changed < 1000 {
		t.Errorf("only %d times a flow had another verdict than before", changed)
	}
}

// killSwitch lets everything pass by wg0 and protects the rest, or discards it.
func killSwitch(rest Verdict) *Policy {
	return &Policy{Rules: []Rule{
		{Name: "vpn", Action: Bypass, In: true, Out: true, Selector: Selector{Interfaces: []string{"wg0"}}},
		{Name: "vpn-forward", Action: Bypass, Forward: true, Selector: Selector{Interfaces: []string{"wg0"}}},
		{Name: "rest", Action: rest, With: "x", In: true, Out: true, Forward: true},
	}}
}

// A live flow whose interface changes is asked about again, both ways, offloaded
// or not, and comes back.
func TestKillSwitch(t *testing.T) {
	for _, offload := range []bool{false, true} {
		for _, lines := range [][2]string{
			{"out udp 198.51.100.1:6100 -> 203.0.113.5:7777", "in udp 203.0.113.5:7777 -> 198.51.100.1:6100"},
			{"in udp [2001:db8::5]:7777 -> [2001:db8::1]:6100", "out udp [2001:db8::1]:6100 -> [2001:db8::5]:7777"},
			{"out tcp 198.51.100.1:6100 -> 203.0.113.5:7777", "in tcp 203.0.113.5:7777 -> 198.51.100.1:6100 ack"},
			{"forward udp 10.1.0.5:6100 -> 203.0.113.5:7777", "forward udp 203.0.113.5:7777 -> 10.1.0.5:6100"},
		} {
			for _, rest := range []Verdict{Discard, Protect} {
				e := New(killSwitch(rest), Options{Outbound: someSA})
				b := &bench{TB: t, Engine: e, now: second}
				by := func(line, dev string) Result {
					in := b.input(line)
					in.Offloadable, in.Tracked = offload, offload
					in.InIf, in.OutIf = dev, ""
					if in.Dir == Out {
						in.InIf, in.OutIf = "", dev
					}
					if in.Dir == Forward {
						in.InIf, in.OutIf = "lan0", dev
						if in.Packet.Dst == b.input("forward udp 10.1.0.5:1 -> 10.1.0.5:1").Packet.Src {
							in.InIf, in.OutIf = dev, "lan0"
						}
					}
					return e.Judge(&in)
				}
				for _, line := range lines {
					if r := by(line, "wg0"); r.Verdict != Bypass || (r.Offload != 0) != offload {
						t.Fatalf("%s on wg0: %v (%v), offload %d", line, r.Verdict, r.Reason, r.Offload)
					}
				}
				for i, line := range lines {
					r := by(line, "eth0")
					leaves := line[0] != 'i' && rest == Protect && !(i == 1 && line[0] == 'f')
					if want := map[bool]Verdict{true: Protect, false: Discard}[leaves]; r.Verdict != want || r.Offload != 0 {
						t.Errorf("%s on eth0, the rest is %v: %v (%v), offload %d", line, rest, r.Verdict, r.Reason, r.Offload)
					}
					if r := by(lines[0], "wg0"); r.Verdict != Bypass {
						t.Errorf("%s back on wg0: %v (%v)", lines[0], r.Verdict, r.Reason)
					}
				}
			}
		}
	}
}

// With interfaces in the policy nothing that is cut is left to the kernel, which
// would go on dropping what may pass by another interface.
func TestCutFlowIsAskedByInterface(t *testing.T) {
	open := &Policy{Default: [directionCount]Verdict{Out: Bypass}}
	b := newBench(t, open)
	in := b.input("out udp 198.51.100.1:6100 -> 203.0.113.5:7777")
	in.Offloadable, in.OutIf = true, "eth0"
	if r := b.Judge(&in); r.Offload == 0 {
		t.Fatalf("not offloaded: %+v", r)
	}
	b.Reload(killSwitch(Discard))
	in.Tracked = true
	for range 3 {
		if r := b.Judge(&in); r.Verdict != Discard || r.Offload != 0 {
			t.Fatalf("by eth0: %v (%v), offload %d", r.Verdict, r.Reason, r.Offload)
		}
	}
	in.OutIf = "wg0"
	if r := b.Judge(&in); r.Verdict != Bypass || r.Offload == 0 {
		t.Errorf("by wg0: %v (%v), offload %d", r.Verdict, r.Reason, r.Offload)
	}
}

func TestNoAllocsByInterface(t *testing.T) {
	b := newBench(t, killSwitch(Discard))
	in := b.input("out udp 198.51.100.1:6100 -> 203.0.113.5:7777")
	i := 0
	if n := testing.AllocsPerRun(200, func() {
		in.OutIf = []string{"wg0", "eth0"}[i%2]
		i++
		b.Judge(&in)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// The loopback interface of the essentials is none that a flow could leave.
func TestNamesInterfaces(t *testing.T) {
	for _, row := range []struct {
		names []string
		want  bool
	}{{nil, false}, {[]string{"lo"}, false}, {[]string{"lo", "eth0"}, true}, {[]string{"*"}, true}} {
		p := &Policy{Rules: []Rule{{Name: "r", In: true, Selector: Selector{Interfaces: row.names}}}}
		if got := p.NamesInterfaces(); got != row.want {
			t.Errorf("%v: %v", row.names, got)
		}
	}
}

// An ICMP error goes where its flow may go, and no other way: what it quotes is a
// part of the flow.
func TestErrorsByInterface(t *testing.T) {
	for _, row := range []struct {
		flow, line string
		from, to   string // interfaces of the flow's packet
		in, out    string // and of the error
		want       Verdict
	}{
		{"in udp 203.0.113.5:7777 -> 198.51.100.1:6100", "out icmp 3/3 198.51.100.1 -> 203.0.113.5", "wg0", "", "", "wg0", Bypass},
		{"in udp 203.0.113.5:7777 -> 198.51.100.1:6100", "out icmp 3/3 198.51.100.1 -> 203.0.113.5", "wg0", "", "", "eth0", Discard},
		{"out udp [2001:db8::1]:6100 -> [2001:db8::5]:7777", "in icmpv6 1/4 2001:db8::5 -> 2001:db8::1", "", "wg0", "wg0", "", Bypass},
		{"out udp [2001:db8::1]:6100 -> [2001:db8::5]:7777", "in icmpv6 1/4 2001:db8::5 -> 2001:db8::1", "", "wg0", "eth0", "", Discard},
		{"forward udp 10.1.0.5:6100 -> 203.0.113.5:7777", "forward icmp 3/3 203.0.113.5 -> 10.1.0.5", "lan0", "wg0", "wg0", "lan0", Bypass},
		{"forward udp 10.1.0.5:6100 -> 203.0.113.5:7777", "forward icmp 3/3 203.0.113.5 -> 10.1.0.5", "lan0", "wg0", "eth0", "lan0", Discard},
		{"forward udp 10.1.0.5:6100 -> 203.0.113.5:7777", "out icmp 3/4 10.1.0.1 -> 10.1.0.5", "lan0", "wg0", "", "lan0", Bypass},
		{"forward udp 203.0.113.5:7777 -> 10.1.0.5:6100", "out icmp 3/4 10.1.0.1 -> 203.0.113.5", "wg0", "lan0", "", "eth0", Discard},
	} {
		b := newBench(t, killSwitch(Discard))
		first := b.input(row.flow)
		first.InIf, first.OutIf = row.from, row.to
		if r := b.Judge(&first); r.Verdict != Bypass {
			t.Fatalf("%s: %v (%v)", row.flow, r.Verdict, r.Reason)
		}
		e := b.input(row.line, func(s *packet.Spec) { s.Payload = first.Packet.Bytes })
		e.InIf, e.OutIf = row.in, row.out
		if r := b.Judge(&e); r.Verdict != row.want {
			t.Errorf("%s about %s, by %q and %q: %v (%v), want %v", row.line, row.flow, row.in, row.out, r.Verdict, r.Reason, row.want)
		}
	}
}
