package engine

import (
	"testing"

	"github.com/ipfw/ipfw/packet"
)

// secondPass is a gateway between a network behind it, on lan0, and the wire that
// sealed packets come by, wan0.
type secondPass struct {
	*bench
	out Output
}

func newSecondPass(t testing.TB, rules ...Rule) *secondPass {
	return &secondPass{bench: &bench{TB: t, Engine: New(&Policy{Rules: rules}, Options{Outbound: someSA}), now: second}}
}

// offices protects what two networks say to each other, in the clear on the
// interfaces that are named.
func offices(t testing.TB, interfaces ...string) Rule {
	return Rule{Name: "offices", Action: Protect, With: "s", Forward: true, Selector: Selector{
		Local: addrs(t, "198.51.100.0/24", "fd00:1::/64"), Remote: addrs(t, "10.2.0.0/16", "fd00:2::/64"), Interfaces: interfaces}}
}

// comes judges a packet that has just come out of an SA, whose sealed self came
// by a device.
func (g *secondPass) comes(line, sa, dev string, changes ...func(*packet.Spec)) Result {
	g.Helper()
	in := g.input(line, changes...)
	in.SA, in.Arriving, in.InIf, in.OutIf = sa, true, dev, ""
	return g.Process(&in, &g.out)
}

// goesOn judges it again, at the forward hook.
func (g *secondPass) goesOn(line, dev string, changes ...func(*packet.Spec)) Result {
	g.Helper()
	in := g.input(line, changes...)
	in.Opened, in.InIf, in.OutIf = true, "ipfw0", dev
	return g.Process(&in, &g.out)
}

// leaves judges a packet from the network behind the host.
func (g *secondPass) leaves(line, from, to string) Result {
	g.Helper()
	in := g.input(line)
	in.InIf, in.OutIf = from, to
	return g.Judge(&in)
}

// What came out of an SA leaves by the network that its rule is about, and is
// discarded wherever else routes lead it.
func TestOpenedAtForwardHook(t *testing.T) {
	for _, lines := range [][2]string{
		{"forward udp 10.2.0.5:6000 -> 198.51.100.77:7", "forward udp 198.51.100.77:7 -> 10.2.0.5:6000"},
		{"forward tcp [fd00:2::5]:6000 -> [fd00:1::7]:80", "forward tcp [fd00:1::7]:80 -> [fd00:2::5]:6000 ack"},
		{"forward icmp 10.2.0.5 -> 198.51.100.77", "forward icmp 0 198.51.100.77 -> 10.2.0.5"},
	} {
		for _, row := range []struct {
			names []string
			to    string
			want  Reason // of the second pass
		}{
			{nil, "lan0", ReasonFlow},
			{nil, "lan1", ReasonFlow},
			{nil, "wan0", ReasonTurnsBack},
			{[]string{"lan0"}, "lan0", ReasonFlow},
			{[]string{"lan*"}, "lan1", ReasonFlow},
			{[]string{"lan0"}, "wan1", ReasonDefault},
			{[]string{"lan0"}, "wan0", ReasonDefault},
			{[]string{"wan0"}, "wan0", ReasonFlow}, // one-armed: the rule says so
		} {
			g := newSecondPass(t, offices(t, row.names...))
			if r := g.comes(lines[0], "s", "wan0"); r.Verdict != Protect {
				t.Fatalf("%s, interface %v, arriving: %v (%v)", lines[0], row.names, r.Verdict, r.Reason)
			}
			pass := func(line, to string, want Reason) {
				t.Helper()
				for range 2 { // the second time it is known
					if r := g.goesOn(line, to); r.Reason != want || (r.Verdict == Protect) != (want == ReasonFlow) {
						t.Errorf("%s, interface %v, to %s: %v (%v), want %v", line, row.names, to, r.Verdict, r.Reason, want)
					}
				}
			}
			pass(lines[0], row.to, row.want)
			if row.want != ReasonFlow || row.to == "wan0" {
				continue
			}
			if r := g.leaves(lines[1], row.to, "wan0"); r.Verdict != Protect {
				t.Errorf("the answer to %s: %v (%v)", lines[0], r.Verdict, r.Reason)
			}
			// The way changes while the flow lives, and back.
			pass(lines[0], "wan0", map[bool]Reason{true: ReasonTurnsBack, false: ReasonDefault}[row.names == nil])
			pass(lines[0], row.to, ReasonFlow)
		}
	}
}

// The answers to what the network behind the host opens are held to the same.
func TestOpenedAnswers(t *testing.T) {
	const there, back = "forward udp 198.51.100.77:6000 -> 10.2.0.5:7", "forward udp 10.2.0.5:7 -> 198.51.100.77:6000"
	for _, names := range [][]string{nil, {"lan0"}} {
		g := newSecondPass(t, offices(t, names...))
		if r := g.leaves(there, "lan0", "wan0"); r.Verdict != Protect {
			t.Fatalf("%v (%v)", r.Verdict, r.Reason)
		}
		if r := g.comes(back, "other", "wan0"); r.Reason != ReasonWrongSA {
			t.Errorf("by another SA: %v (%v)", r.Verdict, r.Reason)
		}
		if r := g.goesOn(back, "lan0"); r.Reason != ReasonUnknownSA {
			t.Errorf("that has not arrived: %v (%v)", r.Verdict, r.Reason)
		}
		for to, pass := range map[string]bool{"lan0": true, "wan0": false} {
			if r := g.comes(back, "s", "wan0"); r.Verdict != Protect {
				t.Errorf("%v (%v)", r.Verdict, r.Reason)
			}
			if r := g.goesOn(back, to); (r.Verdict == Protect) != pass {
				t.Errorf("interface %v, to %s: %v (%v)", names, to, r.Verdict, r.Reason)
			}
		}
	}
}

// What other programs have sent elsewhere is not what policy was asked about.
func TestOpenedTranslated(t *testing.T) {
	g := newSecondPass(t, offices(t), Rule{Name: "in", Action: Protect, With: "s", In: true}, Rule{Name: "rest", Action: Bypass, Forward: true})
	for _, line := range []string{"forward udp 10.2.0.5:6000 -> 198.51.100.77:7", "in udp 10.2.0.5:6000 -> 192.0.2.1:8080"} {
		if r := g.comes(line, "s", "wan0"); r.Verdict != Protect {
			t.Fatalf("%s: %v (%v)", line, r.Verdict, r.Reason)
		}
	}
	if r := g.goesOn("forward udp 10.2.0.5:6000 -> 203.0.113.50:80", "lan0"); r.Verdict != Discard || r.Reason != ReasonUnknownSA {
		t.Errorf("another address: %v (%v)", r.Verdict, r.Reason)
	}
	moved := g.input("forward udp 10.2.0.5:6000 -> 198.51.100.77:7")
	moved.Opened, moved.Moved, moved.OutIf = true, true, "lan0"
	if r := g.Process(&moved, &g.out); r.Verdict != Discard || r.Reason != ReasonTranslated {
		t.Errorf("an address that a flow has: %v (%v)", r.Verdict, r.Reason)
	}
	redirected := g.input("in udp 10.2.0.5:6000 -> 192.0.2.1:8080")
	redirected.Opened, redirected.Moved, redirected.InIf = true, true, "ipfw0"
	if r := g.Process(&redirected, &g.out); r.Verdict != Discard || r.Reason != ReasonTranslated {
		t.Errorf("to this host: %v (%v)", r.Verdict, r.Reason)
	}
}

// ICMP errors have no flow of their own: what came out of an SA goes on, once it
// has, and nothing else that looks like it.
func TestOpenedICMPError(t *testing.T) {
	g := newSecondPass(t, offices(t, "lan0"), Rule{Name: "pings", Action: Protect, With: "s", Forward: true, Selector: Selector{
		Local: addrs(t, "198.51.100.0/24"), Remote: addrs(t, "10.2.0.0/16"), ICMP: []ICMPSel{{packet.ICMP, 13, -1}}}})
	quoted := g.input("forward udp 198.51.100.77:6000 -> 10.2.0.5:7")
	if r := g.leaves("forward udp 198.51.100.77:6000 -> 10.2.0.5:7", "lan0", "wan0"); r.Verdict != Protect {
		t.Fatalf("%v (%v)", r.Verdict, r.Reason)
	}
	about := func(s *packet.Spec) { s.Payload = quoted.Packet.Bytes }
	const line = "forward icmp 3/3 10.2.0.5 -> 198.51.100.77"
	if r := g.goesOn(line, "lan0", about); r.Reason != ReasonUnknownSA {
		t.Errorf("that has not arrived: %v (%v)", r.Verdict, r.Reason)
	}
	if r := g.comes(line, "s", "wan0", about); r.Verdict != Protect {
		t.Fatalf("arriving: %v (%v)", r.Verdict, r.Reason)
	}
	if r := g.goesOn(line, "lan0", about); r.Verdict != Protect || r.Reason != ReasonRelated {
		t.Errorf("%v (%v)", r.Verdict, r.Reason)
	}
	if r := g.goesOn(line, "wan0", about); r.Verdict != Discard {
		t.Errorf("to wan0: %v (%v)", r.Verdict, r.Reason)
	}
	if r := g.goesOn("forward icmp 3/3 10.2.0.6 -> 198.51.100.77", "lan0", about); r.Reason != ReasonUnknownSA {
		t.Errorf("of another sender: %v (%v)", r.Verdict, r.Reason)
	}
	if r := g.goesOn("forward icmp 3/1 10.2.0.5 -> 198.51.100.77", "lan0", about); r.Reason != ReasonUnknownSA {
		t.Errorf("of another code: %v (%v)", r.Verdict, r.Reason)
	}
	const stamp = "forward icmp 13 10.2.0.5 -> 198.51.100.77"
	if r := g.comes(stamp, "s", "wan0"); r.Verdict != Protect {
		t.Fatalf("%v (%v)", r.Verdict, r.Reason)
	}
	if r := g.goesOn(stamp, "lan0"); r.Verdict != Protect {
		t.Errorf("%v (%v)", r.Verdict, r.Reason)
	}
	g.now += notedTime
	if r := g.goesOn(stamp, "lan0"); r.Reason != ReasonUnknownSA {
		t.Errorf("long after: %v (%v)", r.Verdict, r.Reason)
	}
}

// From one tunnel to another: what policy wants sealed does not leave in the
// clear, whoever may open there; a rule that lets it be counts, and one that
// does not tell its sides apart is the one that it came by.
func TestOpenedForAnotherTunnel(t *testing.T) {
	ends := func(local, remote string) Selector {
		return Selector{Local: addrs(t, local), Remote: addrs(t, remote)}
	}
	first := Rule{Name: "first", Action: Protect, With: "s", Forward: true, Selector: ends("10.0.0.0/8", "10.2.0.0/16")}
	second := Rule{Name: "second", Action: Protect, With: "z", Forward: true, Selector: ends("10.0.0.0/8", "10.3.0.0/16")}
	opens := second
	opens.OpenedBy = OpenedByRemote
	except := Rule{Name: "except", Action: Bypass, Forward: true, Selector: ends("10.2.0.0/16", "10.3.0.0/24")}
	both := Rule{Name: "both", Action: Protect, With: "s", Forward: true, Selector: ends("10.0.0.0/8", "10.0.0.0/8")}
	const line = "forward udp 10.2.0.5:6000 -> 10.3.0.7:7"
	for _, row := range []struct {
		rules []Rule
		want  Reason
	}{
		{[]Rule{first}, ReasonFlow},
		{[]Rule{first, second}, ReasonMustSeal},
		{[]Rule{first, opens}, ReasonMustSeal},
		{[]Rule{first, except, second}, ReasonFlow},
		{[]Rule{first, second, except}, ReasonMustSeal},
		{[]Rule{both}, ReasonFlow},
	} {
		g := newSecondPass(t, row.rules...)
		if r := g.comes(line, "s", "wan0"); r.Verdict != Protect {
			t.Fatalf("%v: %v (%v)", row.rules, r.Verdict, r.Reason)
		}
		if r := g.goesOn(line, "lan0"); r.Reason != row.want {
			t.Errorf("%v: %v (%v), want %v", row.rules, r.Verdict, r.Reason, row.want)
		}
	}
}

// A gateway with one interface, which its rule names, sends nothing in the clear
// to the far side of that rule, where another caller may be, also if the local
// side is everything. Rules that do not tell their sides apart, and those whose
// local side is a part of the remote one, let it go.
func TestOpenedForAnotherCaller(t *testing.T) {
	pool := []string{"10.9.0.0/24", "fd09::/64"}
	for _, row := range []struct {
		local, remote []string
		want          Verdict // of what goes from caller to caller
	}{
		{nil, pool, Discard},
		{[]string{"10.0.0.0/8", "fd00::/8"}, pool, Discard},
		{[]string{"192.0.2.0/24", "2001:db8::/64", "10.9.0.0/25", "fd09::/65", "10.9.0.128/25", "fd09:0:0:0:8000::/65", "10.8.0.0/24", "fd08::/64"}, pool, Discard},
		{[]string{"0.0.0.0/0", "::/0"}, pool, Discard},
		{nil, nil, Protect},
		{nil, []string{"0.0.0.0/0", "::/0"}, Protect},
		{pool, pool, Protect},
		{pool, nil, Protect},
	} {
		rule := Rule{Name: "callers", Action: Protect, With: "s", Forward: true, Selector: Selector{
			Local: addrs(t, row.local...), Remote: addrs(t, row.remote...), Interfaces: []string{"wan0"}}}
		for _, lines := range [][2]string{
			{"forward udp 10.9.0.5:6000 -> 10.9.0.66:7", "forward udp 10.9.0.5:6000 -> 192.0.2.7:7"},
			{"forward tcp [fd09::5]:6000 -> [fd09::66]:7", "forward tcp [fd09::5]:6000 -> [2001:db8::7]:7"},
		} {
			g := newSecondPass(t, rule)
			if r := g.comes(lines[0], "s", "wan0"); r.Verdict != Protect {
				t.Fatalf("local %v, remote %v, %s, arriving: %v (%v)", row.local, row.remote, lines[0], r.Verdict, r.Reason)
			}
			for range 2 { // the second time it is known
				r := g.goesOn(lines[0], "wan0")
				if r.Verdict != row.want || r.Verdict == Discard && r.Reason != ReasonMustSeal {
					t.Errorf("local %v, remote %v, %s: %v (%v), want %v", row.local, row.remote, lines[0], r.Verdict, r.Reason, row.want)
				}
			}
			// To the world it goes on, with any local side that has it.
			if row.local == nil {
				g.comes(lines[1], "s", "wan0")
				if r := g.goesOn(lines[1], "wan0"); r.Verdict != Protect {
					t.Errorf("remote %v, %s: %v (%v)", row.remote, lines[1], r.Verdict, r.Reason)
				}
			}
		}
	}
}

// A packet counts once: where it is let through as it arrives, and where it is
// discarded after that for its reason.
func TestOpenedCountsOnce(t *testing.T) {
	const line = "forward udp 10.2.0.5:6000 -> 198.51.100.77:7"
	g := newSecondPass(t, offices(t))
	for range 3 {
		g.comes(line, "s", "wan0")
		g.goesOn(line, "lan0")
	}
	g.comes(line, "s", "wan0")
	g.goesOn(line, "wan0")
	st := g.Stats()
	if st.Rules[0].Packets != 4 || st.Reasons[ReasonFlow]+st.Reasons[ReasonRule] != 4 || st.Reasons[ReasonTurnsBack] != 1 {
		t.Errorf("rule %+v, reasons %v", st.Rules[0], st.Reasons)
	}
}

// A reload between the two passes decides anew, and a gateway that knows the
// flow allocates nothing for its packets.
func TestOpenedReload(t *testing.T) {
	const line = "forward udp 10.2.0.5:6000 -> 198.51.100.77:7"
	g := newSecondPass(t, offices(t))
	g.comes(line, "s", "wan0")
	arriving, onward := g.input(line), g.input(line)
	if n := testing.AllocsPerRun(200, func() {
		arriving.SA, arriving.Arriving, arriving.InIf = "s", true, "wan0"
		onward.Opened, onward.OutIf = true, "lan0"
		if g.Process(&arriving, &g.out).Verdict != Protect || g.Process(&onward, &g.out).Verdict != Protect {
			t.Error("does not pass")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	g.Reload(&Policy{Rules: []Rule{offices(t, "lan1")}})
	if r := g.goesOn(line, "lan0"); r.Verdict != Discard {
		t.Errorf("%v (%v)", r.Verdict, r.Reason)
	}
	g.comes(line, "s", "wan0")
	if r := g.goesOn(line, "lan1"); r.Verdict != Protect {
		t.Errorf("%v (%v)", r.Verdict, r.Reason)
	}
}

// What people are told is what the daemon does.
func TestExplainProtectedForward(t *testing.T) {
	for _, row := range []struct {
		names []string
		dev   string
		want  Verdict
	}{{nil, "lan0", Protect}, {[]string{"lan0"}, "lan0", Protect}, {[]string{"lan0"}, "wan0", Discard}} {
		e := New(&Policy{Rules: []Rule{offices(t, row.names...)}}, Options{})
		for _, words := range []string{"", " established"} {
			tr, err := ParseTrial("forward udp 10.2.0.5:6000 -> 198.51.100.77:7 protected s on " + row.dev + words)
			if err != nil {
				t.Fatal(err)
			}
			if o, err := tr.Run(e); err != nil || o.Result.Verdict != row.want {
				t.Errorf("interface %v, on %s%s: %v (%v), %v", row.names, row.dev, words, o.Result.Verdict, o.Result.Reason, err)
			}
		}
	}
}
