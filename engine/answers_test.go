package engine

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/ipfw/ipfw/packet"
)

// asker is a host whose policy lets neighbours answer what it asks groups.
func asker(t testing.TB, rules ...Rule) *bench {
	answers := Rule{Name: "answers", Action: Bypass, In: true, AnswersMulticast: 5 * time.Second, Selector: Selector{Protocols: []uint8{packet.UDP}}}
	p := &Policy{Rules: append(rules, answers), Default: [directionCount]Verdict{Out: Bypass}}
	return &bench{TB: t, now: second, Engine: New(p, Options{Networks: networks, IsLocal: func(a netip.Addr) bool {
		return ownAddresses[a]
	}})}
}

// networks are those of the asker's two interfaces.
func networks(dev string) []netip.Prefix {
	return linkedNetworks[dev]
}

var ownAddresses = map[netip.Addr]bool{
	netip.MustParseAddr("192.0.2.1"): true, netip.MustParseAddr("192.0.2.255"): true, netip.MustParseAddr("198.51.100.1"): true,
	netip.MustParseAddr("fe80::1"): true, netip.MustParseAddr("2001:db8::1"): true,
}

var linkedNetworks = map[string][]netip.Prefix{
	"eth0":  {netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("fe80::1/64"), netip.MustParsePrefix("2001:db8::1/64"), netip.MustParsePrefix("203.0.113.4/31")},
	"wlan0": {netip.MustParsePrefix("198.51.100.1/24"), netip.MustParsePrefix("fe80::1/64")},
}

const (
	llmnr4 = "out udp 192.0.2.1:50000 -> 224.0.0.252:5355 on eth0"
	llmnr6 = "out udp [fe80::1]:50000 -> [ff02::1:3]:5355 on eth0"
)

func TestAnswersToQuestions(t *testing.T) {
	for _, row := range []struct {
		verdict          Verdict
		question, answer string
	}{
		{Bypass, llmnr4, "in udp 192.0.2.9:5355 -> 192.0.2.1:50000 on eth0"},
		{Bypass, llmnr4, "in udp 192.0.2.9:40000 -> 192.0.2.1:50000 on eth0"}, // SSDP's come from any port
		{Bypass, llmnr6, "in udp [fe80::9]:5355 -> [fe80::1]:50000 on eth0"},
		{Bypass, llmnr6, "in udp [2001:db8::9]:5355 -> [fe80::1]:50000 on eth0"},
		{Bypass, "out udp 192.0.2.1:137 -> 192.0.2.255:137 on eth0", "in udp 192.0.2.9:137 -> 192.0.2.1:137 on eth0"},
		{Bypass, "out udp 192.0.2.1:50000 -> 255.255.255.255:161 on eth0", "in udp 192.0.2.9:161 -> 192.0.2.1:50000 on eth0"},
		{Bypass, "out udp 192.0.2.1:50000 -> 239.255.255.250:1900 on eth0", "in udp 203.0.113.5:1900 -> 192.0.2.1:50000 on eth0"},
		// Nobody was asked.
		{Discard, "", "in udp 192.0.2.9:5355 -> 192.0.2.1:50000 on eth0"},
		{Discard, "out udp 192.0.2.1:50000 -> 192.0.2.8:5355 on eth0", "in udp 192.0.2.9:5355 -> 192.0.2.1:50000 on eth0"},
		{Discard, "out udp 192.0.2.1:50000 -> 203.0.113.9:53 on eth0", "in udp 192.0.2.9:53 -> 192.0.2.1:50000 on eth0"},
		{Discard, "out tcp 192.0.2.1:50000 -> 192.0.2.255:137 on eth0", "in udp 192.0.2.9:137 -> 192.0.2.1:50000 on eth0"},
		{Discard, "out udp 0.0.0.0:50000 -> 255.255.255.255:67 on eth0", "in udp 192.0.2.9:67 -> 192.0.2.1:50000 on eth0"},
		{Discard, "out udp 192.0.2.1:50000 -> 198.51.100.255:137 on eth0", "in udp 192.0.2.9:137 -> 192.0.2.1:50000 on eth0"}, // of another interface
		// Another port, address, interface, family, protocol.
		{Discard, llmnr4, "in udp 192.0.2.9:5355 -> 192.0.2.1:50001 on eth0"},
		{Discard, llmnr4, "in udp 192.0.2.9:5355 -> 198.51.100.1:50000 on eth0"},
		{Discard, llmnr4, "in udp 192.0.2.9:5355 -> 192.0.2.1:50000 on wlan0"},
		{Discard, llmnr4, "in udp 198.51.100.9:5355 -> 192.0.2.1:50000 on wlan0"},
		{Discard, llmnr6, "in udp [fe80::9]:5355 -> [fe80::1]:50000 on wlan0"},
		{Discard, llmnr4, "in udp [fe80::9]:5355 -> [fe80::1]:50000 on eth0"},
		{Discard, llmnr4, "in tcp 192.0.2.9:5355 -> 192.0.2.1:50000 on eth0"},
		{Discard, llmnr4, "in udplite 192.0.2.9:5355 -> 192.0.2.1:50000 on eth0"},
		{Discard, llmnr4, "in udp 192.0.2.9:50000 -> 224.0.0.252:50000 on eth0"},
		// Not a neighbour.
		{Discard, llmnr4, "in udp 203.0.113.9:5355 -> 192.0.2.1:50000 on eth0"},
		{Discard, llmnr4, "in udp 192.0.2.255:5355 -> 192.0.2.1:50000 on eth0"},
		{Discard, llmnr4, "in udp 192.0.2.0:5355 -> 192.0.2.1:50000 on eth0"},
		{Discard, llmnr4, "in udp 192.0.2.1:5355 -> 192.0.2.1:50000 on eth0"},
		{Discard, llmnr4, "in udp 224.0.0.1:5355 -> 192.0.2.1:50000 on eth0"},
		{Discard, llmnr4, "in udp 0.0.0.0:5355 -> 192.0.2.1:50000 on eth0"},
		{Discard, llmnr6, "in udp [2001:db8:1::9]:5355 -> [fe80::1]:50000 on eth0"},
		{Discard, llmnr6, "in udp [ff02::1]:5355 -> [fe80::1]:50000 on eth0"},
		{Discard, "out udp 192.0.2.1:50000 -> 224.0.0.252:5355 on tun0", "in udp 192.0.2.9:5355 -> 192.0.2.1:50000 on tun0"},
		{Discard, "forward udp 192.0.2.1:50000 -> 224.0.0.252:5355", "in udp 192.0.2.9:5355 -> 192.0.2.1:50000"},
	} {
		b := asker(t)
		if row.question != "" {
			b.see(row.question)
		}
		if r := b.see(row.answer); r.Verdict != row.verdict || r.Verdict == Bypass && r.Rule != 0 {
			t.Errorf("%q, then %q: %v by rule %d, want %v", row.question, row.answer, r.Verdict, r.Rule, row.verdict)
		}
	}
}

// The time begins with the last question and ends whatever has been answered;
// answers open no flow and are not offloaded, and neither are questions, so that
// each of them is seen.
func TestAnswersEnd(t *testing.T) {
	for _, way := range [][2]string{
		{llmnr4, "in udp 192.0.2.9:5355 -> 192.0.2.1:50000 on eth0"},
		{llmnr6, "in udp [fe80::9]:5355 -> [fe80::1]:50000 on eth0"},
	} {
		b := asker(t)
		offload := func(line string) Result {
			in := b.input(line)
			in.Offloadable = true
			return b.Judge(&in)
		}
		window := int64(5 * time.Second)
		for range 3 {
			if r := offload(way[0]); r.Verdict != Bypass || r.Offload != 0 {
				t.Fatalf("%s: %v, offload %d", way[0], r.Verdict, r.Offload)
			}
			for range 3 {
				if r := offload(way[1]); r.Verdict != Bypass || r.Offload != 0 || r.NewFlow || r.Established {
					t.Errorf("%s: %+v", way[1], r)
				}
			}
			b.now += window
			if r := offload(way[1]); r.Verdict != Bypass {
				t.Errorf("%s: %v at the end of the time", way[1], r.Verdict)
			}
		}
		if n := b.flows.len(); n != 1 {
			t.Errorf("%d flows, want the question's", n)
		}
		b.now++
		if r := offload(way[1]); r.Verdict != Discard || r.Reason != ReasonDefault {
			t.Errorf("%s: %v (%v) after the time", way[1], r.Verdict, r.Reason)
		}
	}
	// An ordinary flow of the same policy is offloaded.
	b := asker(t)
	in := b.input("out udp 192.0.2.1:50000 -> 203.0.113.9:53 on eth0")
	in.Offloadable = true
	if r := b.Judge(&in); r.Offload == 0 {
		t.Error("no flow is offloaded at all")
	}
}

// An explicit rule in front wins, the default does not, and a question that does
// not pass is none.
func TestAnswersAmongRules(t *testing.T) {
	const answer = "in udp 192.0.2.9:5355 -> 192.0.2.1:50000 on eth0"
	ban := Rule{Name: "ban", Action: Discard, In: true, Selector: Selector{Remote: addrs(t, "192.0.2.9")}}
	b := asker(t, ban)
	b.see(llmnr4)
	if r := b.see(answer); r.Verdict != Discard || r.Rule != 0 {
		t.Errorf("%v by %d, though a rule in front discards", r.Verdict, r.Rule)
	}
	b = asker(t, Rule{Name: "quiet", Action: Discard, Out: true})
	b.see(llmnr4)
	if r := b.see(answer); r.Verdict != Discard {
		t.Error("an answer to a question that did not pass")
	}
	// A limit counts each answer.
	b = asker(t)
	p := *b.Policy()
	p.Rules = []Rule{p.Rules[0]}
	p.Rules[0].Limit = &Limit{Events: 2, Per: time.Hour, Burst: 2}
	b.Reload(&p)
	b.see(llmnr4)
	for i, want := range []Verdict{Bypass, Bypass, Discard} {
		if r := b.see(answer); r.Verdict != want {
			t.Errorf("answer %d: %v, want %v", i, r.Verdict, want)
		}
	}
}

// A policy without the rule ends the time at once, and one that has it again
// begins with nothing asked.
func TestAnswersReload(t *testing.T) {
	const answer = "in udp 192.0.2.9:5355 -> 192.0.2.1:50000 on eth0"
	b := asker(t)
	with := b.Policy()
	without := *with
	without.Rules = nil
	b.see(llmnr4)
	b.Reload(with)
	if r := b.see(answer); r.Verdict != Bypass {
		t.Error("a reload that keeps the rule forgets the question")
	}
	b.Reload(&without)
	if r := b.see(answer); r.Verdict != Discard {
		t.Error("an answer comes in without the rule")
	}
	b.Reload(with)
	if r := b.see(answer); r.Verdict != Discard {
		t.Error("a question of before the policy without the rule is remembered")
	}
}

// Connection tracking takes what this host sends to who has answered for a reply.
// It is no reply: it opens a flow, if policy lets this host open it. A flow that
// the neighbour had opened is none of these.
func TestSpeakToAnswerer(t *testing.T) {
	const (
		answer = "in udp 192.0.2.9:1900 -> 192.0.2.1:50000 on eth0"
		back   = "out udp 192.0.2.1:50000 -> 192.0.2.9:1900 on eth0"
	)
	reply := func(b *bench, line string) Result {
		in := b.input(line)
		in.Reply, in.Tracked = true, true
		return b.Judge(&in)
	}
	for _, age := range []int64{0, 60 * second} {
		b := asker(t)
		b.see(llmnr4)
		b.see(answer)
		b.now += age
		if r := reply(b, back); r.Verdict != Bypass || r.Rule != DefaultRule || !r.NewFlow {
			t.Errorf("after %d s: %v by %d (%v), want a new flow by the default", age/second, r.Verdict, r.Rule, r.Reason)
		}
		if r := b.see(answer); r.Verdict != Bypass || r.Reason != ReasonFlow {
			t.Errorf("after %d s: %v (%v), want the flow's answer", age/second, r.Verdict, r.Reason)
		}
	}
	b := asker(t, Rule{Name: "quiet", Action: Discard, Out: true, Selector: Selector{Remote: addrs(t, "192.0.2.9")}})
	b.see(llmnr4)
	b.see(answer)
	if r := reply(b, back); r.Verdict != Discard || r.Rule != 0 {
		t.Errorf("%v by %d, though policy lets this host open nothing there", r.Verdict, r.Rule)
	}
	// A server's flow goes on in a daemon that has not seen it open, though this
	// host may open nothing; and one that a rule cuts is cut.
	dns := Rule{Name: "dns", Action: Bypass, In: true, Selector: Selector{Protocols: []uint8{packet.UDP}, LocalPorts: ports(50000)}}
	b = asker(t)
	p := *b.Policy()
	p.Rules = []Rule{p.Rules[0], dns}
	p.Default[Out] = Discard
	b.Reload(&p)
	if r := reply(b, back); r.Verdict != Bypass || r.Rule != 1 {
		t.Errorf("%v by %d (%v), want the flow that the neighbour had opened", r.Verdict, r.Rule, r.Reason)
	}
	b = asker(t, Rule{Name: "ban", Action: Discard, In: true, Selector: Selector{Remote: addrs(t, "192.0.2.9")}})
	if r := reply(b, back); r.Verdict != Discard || r.Rule != 0 {
		t.Errorf("%v by %d, though a rule cuts the flow", r.Verdict, r.Rule)
	}
}

// The questions against their slow twin, a map: what is found was asked, by that
// device, at that time; and as long as few ask, all that was asked is found.
func TestQuestionsAgainstMap(t *testing.T) {
	type key struct {
		local netip.AddrPort
		dev   string
	}
	for _, many := range []bool{false, true} {
		r := rand.New(rand.NewPCG(5, 1))
		s := &spd{policy: &Policy{Rules: []Rule{{AnswersMulticast: 1}}}}
		s.keepQuestions(nil)
		twin := map[key]int64{}
		lost := 0
		for now := range int64(50_000) {
			k := key{netip.AddrPortFrom(worldAddr(r, false), 50000), worldIfs[0]} // 24 of them
			if many {
				k = key{netip.AddrPortFrom(worldAddr(r, r.IntN(2) == 0), uint16(r.IntN(200))), worldIfs[r.IntN(2)]}
			}
			if r.IntN(2) == 0 {
				s.questions.note(k.local, k.dev, now+1)
				twin[k] = now + 1
				if when, ok := s.questions.last(k.local, k.dev); !ok || when != now+1 {
					t.Fatalf("%v asked at %d: %d, %v", k, now+1, when, ok)
				}
				continue
			}
			when, ok := s.questions.last(k.local, k.dev)
			if was, is := twin[k]; ok && (!is || was != when) {
				t.Fatalf("%v: %d, asked at %d (%v)", k, when, was, is)
			} else if is && !ok {
				lost++
			}
		}
		if !many && lost > 0 {
			t.Errorf("%d questions of few askers are lost", lost)
		}
		held := 0
		for i := range s.questions.sets {
			for _, q := range s.questions.sets[i].asked {
				if q.local.IsValid() {
					held++
				}
			}
		}
		if held > questionSets*questionWays || many && held < questionSets*questionWays/2 {
			t.Errorf("%d questions are held", held)
		}
	}
}

func TestAnswersNoAllocs(t *testing.T) {
	b := asker(t)
	b.see(llmnr4)
	for _, line := range []string{llmnr4, "in udp 192.0.2.9:5355 -> 192.0.2.1:50000 on eth0", "in udp 192.0.2.9:5355 -> 192.0.2.1:50001 on eth0", "in udp 203.0.113.9:5355 -> 192.0.2.1:50000 on eth0"} {
		in := b.input(line)
		if n := testing.AllocsPerRun(200, func() { b.Judge(&in) }); n != 0 {
			t.Errorf("%s: %v allocations", line, n)
		}
	}
}

// A flood of answers leaves nothing behind, and questions of 10,000 ports no more
// than there is room for.
func TestAnswersAreBounded(t *testing.T) {
	b := asker(t)
	b.see(llmnr4)
	for i := range 20_000 {
		if r := b.see(fmt.Sprintf("in udp 192.0.2.%d:%d -> 192.0.2.1:50000 on eth0", 2+i%250, 1024+i)); r.Verdict != Bypass {
			t.Fatal(r.Reason)
		}
	}
	if n := b.flows.len(); n != 1 {
		t.Errorf("%d flows, want the question's", n)
	}
}
