package engine

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/packet"
)

// bench is one host under one policy, on a clock that the test moves.
type bench struct {
	testing.TB
	*Engine
	now int64
}

func newBench(t testing.TB, p *Policy) *bench {
	return &bench{TB: t, Engine: New(p, Options{}), now: second}
}

// see judges a packet written in one line. Changes are made to the packet
// before it is built.
func (b *bench) see(line string, changes ...func(*packet.Spec)) Result {
	b.Helper()
	in := b.input(line, changes...)
	return b.Judge(&in)
}

func (b *bench) input(line string, changes ...func(*packet.Spec)) Input {
	b.Helper()
	tr, err := ParseTrial(line)
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range changes {
		c(&tr.Spec)
	}
	in, err := tr.input(tr.Spec, tr.Dir)
	if err != nil {
		b.Fatal(err)
	}
	if f := packet.Parse(&in.Packet, in.Packet.Bytes, len(in.Packet.Bytes)); f != packet.OK {
		b.Fatalf("%s: %v", line, f)
	}
	in.Now = b.now
	return in
}

// want compares verdict and reason with what a row expects.
func (b *bench) want(r Result, v Verdict, reason Reason) {
	b.Helper()
	if r.Verdict != v || r.Reason != reason {
		b.Errorf("got %v (%v), want %v (%v)", r.Verdict, r.Reason, v, reason)
	}
}

func flags(f uint8) func(*packet.Spec) { return func(s *packet.Spec) { s.TCPFlags = f } }

func numbers(seq, ack uint32) func(*packet.Spec) {
	return func(s *packet.Spec) { s.Seq, s.Ack = seq, ack }
}

func data(n int) func(*packet.Spec) { return func(s *packet.Spec) { s.Payload = make([]byte, n) } }

func addrs(t testing.TB, list ...string) (out []AddrRange) {
	for _, s := range list {
		if p, err := netip.ParsePrefix(s); err == nil {
			out = append(out, AddrRange{p.Masked().Addr(), lastOf(p.Masked())})
			continue
		}
		a, err := netip.ParseAddr(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, AddrRange{a, a})
	}
	return out
}

func ports(list ...uint16) (out []PortRange) {
	for _, p := range list {
		out = append(out, PortRange{p, p})
	}
	return out
}

// webServer is the policy of most tests: a server that anyone may reach on 80
// and 443, admins on 22, and the LAN on 445 under an SA.
func webServer(t testing.TB) *Policy {
	return &Policy{
		Default: [directionCount]Verdict{Out: Bypass},
		Rules: []Rule{
			{Name: "web", Action: Bypass, In: true, Selector: Selector{Protocols: []uint8{packet.TCP}, LocalPorts: ports(80, 443)}},
			{Name: "ssh", Action: Bypass, In: true, Log: true, Selector: Selector{Protocols: []uint8{packet.TCP}, LocalPorts: ports(22), Remote: addrs(t, "192.0.2.0/25", "2001:db8:5::/48")}},
			{Name: "ping", Action: Bypass, In: true, Selector: Selector{ICMP: []ICMPSel{{packet.ICMP, 8, -1}, {packet.ICMPv6, 128, -1}}}},
			{Name: "no-telnet", Action: Discard, Out: true, Reject: true, Selector: Selector{Protocols: []uint8{packet.TCP}, RemotePorts: ports(23)}},
			{Name: "smb", Action: Protect, With: "lan", In: true, Out: true, Selector: Selector{Protocols: []uint8{packet.TCP}, LocalPorts: ports(445), Remote: addrs(t, "10.0.0.0/24")}},
			{Name: "dns", Action: Bypass, Forward: true, OpenedBy: OpenedByLocal, Selector: Selector{Protocols: []uint8{packet.UDP}, Local: addrs(t, "10.1.0.0/16"), RemotePorts: ports(53)}},
			{Name: "offices", Action: Bypass, Forward: true, Selector: Selector{Local: addrs(t, "10.1.0.0/16"), Remote: addrs(t, "10.2.0.0/16"), LocalPorts: ports(80)}},
		},
	}
}

func TestOpeningPackets(t *testing.T) {
	for _, row := range []struct {
		verdict Verdict
		reason  Reason
		rule    string
		line    string
	}{
		{Bypass, ReasonRule, "web", "in tcp 203.0.113.9:40000 -> 198.51.100.10:443"},
		{Bypass, ReasonRule, "web", "in tcp [2001:db8::9]:40000 -> [2001:db8::10]:80"},
		{Discard, ReasonDefault, "", "in tcp 203.0.113.9:40000 -> 198.51.100.10:81"},
		{Discard, ReasonDefault, "", "in udp 203.0.113.9:40000 -> 198.51.100.10:443"},
		{Discard, ReasonDefault, "", "in tcp 203.0.113.9:443 -> 198.51.100.10:40000"},

		{Bypass, ReasonRule, "ssh", "in tcp 192.0.2.127:40000 -> 198.51.100.10:22"},
		{Bypass, ReasonRule, "ssh", "in tcp [2001:db8:5:1::1]:40000 -> [2001:db8::10]:22"},
		{Discard, ReasonDefault, "", "in tcp 192.0.2.128:40000 -> 198.51.100.10:22"},
		{Discard, ReasonDefault, "", "in tcp [2001:db8:6::1]:40000 -> [2001:db8::10]:22"},

		{Bypass, ReasonRule, "ping", "in icmp echo-request 192.0.2.1 -> 192.0.2.2"},
		{Bypass, ReasonRule, "ping", "in icmpv6 echo-request 2001:db8::1 -> 2001:db8::2"},
		{Discard, ReasonDefault, "", "in icmp echo-reply 192.0.2.1 -> 192.0.2.2"},
		{Discard, ReasonDefault, "", "in icmp 5/1 192.0.2.1 -> 192.0.2.2"},

		{Bypass, ReasonDefault, "", "out tcp 198.51.100.10:40000 -> 203.0.113.9:443"},
		{Discard, ReasonRule, "no-telnet", "out tcp 198.51.100.10:40000 -> 203.0.113.9:23"},

		{Discard, ReasonClear, "smb", "in tcp 10.0.0.7:50000 -> 10.0.0.5:445"},
		{Discard, ReasonNoSA, "smb", "out tcp 10.0.0.5:445 -> 10.0.0.7:50000"},
		{Protect, ReasonRule, "smb", "in tcp 10.0.0.7:50000 -> 10.0.0.5:445 protected lan"},
		{Protect, ReasonRule, "smb", "in tcp 10.0.0.7:50000 -> 10.0.0.5:445 protected"},
		{Discard, ReasonWrongSA, "smb", "in tcp 10.0.0.7:50000 -> 10.0.0.5:445 protected branch"},
		{Discard, ReasonWrongSA, "web", "in tcp 10.0.0.7:50000 -> 10.0.0.5:443 protected lan"},

		{Bypass, ReasonRule, "dns", "forward udp 10.1.0.5:40000 -> 192.0.2.53:53"},
		{Discard, ReasonDefault, "", "forward udp 192.0.2.53:53 -> 10.1.0.5:40000"},
		{Bypass, ReasonRule, "offices", "forward tcp 10.1.0.5:80 -> 10.2.0.9:40000"},
		{Bypass, ReasonRule, "offices", "forward tcp 10.2.0.9:40000 -> 10.1.0.5:80"},
		{Discard, ReasonDefault, "", "forward tcp 10.1.0.5:40000 -> 10.2.0.9:80"},

		{Discard, ReasonTCPState, "", "in tcp 203.0.113.9:40000 -> 198.51.100.10:443 rst"},
		{Discard, ReasonTCPState, "", "in tcp 203.0.113.9:40000 -> 198.51.100.10:443 syn,ack"},
		{Discard, ReasonTCPState, "", "in tcp 203.0.113.9:40000 -> 198.51.100.10:443 ack syn"},
		{Discard, ReasonTCPState, "", "forward tcp 10.1.0.5:80 -> 10.2.0.9:40000 syn,ack"},
		{Discard, ReasonTCPState, "", "in tcp [2001:db8::9]:40000 -> [2001:db8::10]:443 rst,ack"},
		{Bypass, ReasonRule, "web", "in tcp 203.0.113.9:40000 -> 198.51.100.10:443 syn,ece,cwr"},
		{Bypass, ReasonRule, "web", "in tcp 203.0.113.9:40000 -> 198.51.100.10:443 ack"}, // of a connection older than this engine
		{Bypass, ReasonRule, "web", "in tcp 203.0.113.9:40000 -> 198.51.100.10:443 fin"},
		{Bypass, ReasonFlow, "web", "out tcp 198.51.100.10:443 -> 203.0.113.9:40000 syn,ack established"},
		{Bypass, ReasonFlow, "", "in tcp 203.0.113.9:443 -> 198.51.100.10:40000 syn,ack established"},
		{Bypass, ReasonFlow, "web", "in tcp 203.0.113.9:40000 -> 198.51.100.10:443 rst,ack established"},
		// A SYN+ACK answers the other side's SYN, and telnet may not go out.
		{Discard, ReasonTCPState, "", "in tcp 203.0.113.9:23 -> 198.51.100.10:80 syn,ack established"},
		{Bypass, ReasonFlow, "web", "in tcp 203.0.113.9:40000 -> 198.51.100.10:443 established"},
		{Bypass, ReasonFlow, "", "in tcp 203.0.113.9:443 -> 198.51.100.10:40000 established"},
		{Discard, ReasonDefault, "", "in tcp 203.0.113.9:40000 -> 198.51.100.10:81 fragment"},
		{Bypass, ReasonRule, "web", "in tcp 203.0.113.9:40000 -> 198.51.100.10:80 fragment"},
		{Bypass, ReasonFlow, "ping", "out icmp echo-reply 192.0.2.2 -> 192.0.2.1 established"},
		{Discard, ReasonNoSA, "smb", "out tcp 10.0.0.5:445 -> 10.0.0.7:50000 established"},
		{Discard, ReasonClear, "smb", "in tcp 10.0.0.7:50000 -> 10.0.0.5:445 established"},
		{Protect, ReasonFlow, "smb", "in tcp 10.0.0.7:50000 -> 10.0.0.5:445 established protected lan"},
	} {
		tr, err := ParseTrial(row.line)
		if err != nil {
			t.Fatal(err)
		}
		o, err := tr.Run(New(webServer(t), Options{}))
		if err != nil {
			t.Fatal(err)
		}
		rule := ""
		if o.Rule != nil {
			rule = o.Rule.Name
		}
		if o.Result.Verdict != row.verdict || o.Result.Reason != row.reason || rule != row.rule {
			t.Errorf("%s: got %v %v %q, want %v %v %q", row.line, o.Result.Verdict, o.Result.Reason, rule, row.verdict, row.reason, row.rule)
		}
	}
}

func TestZeroValuesDiscard(t *testing.T) {
	var r Result
	if r.Verdict != Discard || Verdict(0) != Discard {
		t.Error("the zero verdict does not discard")
	}
	b := newBench(t, &Policy{})
	for _, line := range []string{"in tcp 192.0.2.1:1 -> 192.0.2.2:2", "out udp 192.0.2.1:1 -> 192.0.2.2:2", "forward esp 192.0.2.1 -> 192.0.2.2"} {
		b.want(b.see(line), Discard, ReasonDefault)
	}
	b = newBench(t, &Policy{Default: [directionCount]Verdict{Protect, Protect, Protect}})
	b.want(b.see("in tcp 192.0.2.1:1 -> 192.0.2.2:2"), Discard, ReasonDefault)
	for f := packet.Fault(0); f < packet.Fault(packet.Faults)+3; f++ {
		if r := b.Malformed(f); r.Verdict != Discard {
			t.Errorf("fault %v: %v", f, r.Verdict)
		}
	}
	for f := packet.OK + 1; f < packet.Fault(packet.Faults); f++ {
		if ReasonOf(f).String() != f.String() {
			t.Errorf("fault %v has reason %v", f, ReasonOf(f))
		}
	}
}

// A source route that is not used up names a stop, not the end of the way.
func TestSourceRoute(t *testing.T) {
	b := newBench(t, webServer(t))
	route := []byte{131, 7, 4, 192, 0, 2, 9}
	r := b.see("in tcp 203.0.113.9:40000 -> 198.51.100.10:443", func(s *packet.Spec) { s.IPv4Options = route })
	b.want(r, Discard, ReasonSourceRoute)
}

func TestRepliesBelongToTheFlow(t *testing.T) {
	b := newBench(t, webServer(t))
	reply := "in udp 192.0.2.53:53 -> 198.51.100.10:40000"
	b.want(b.see(reply), Discard, ReasonDefault)
	b.want(b.see("out udp 198.51.100.10:40000 -> 192.0.2.53:53"), Bypass, ReasonDefault)
	b.want(b.see(reply), Bypass, ReasonFlow)
	b.want(b.see("in udp 192.0.2.53:54 -> 198.51.100.10:40000"), Discard, ReasonDefault)
	b.want(b.see("in udp 192.0.2.54:53 -> 198.51.100.10:40000"), Discard, ReasonDefault)
	b.want(b.see("in tcp 192.0.2.53:53 -> 198.51.100.10:40000"), Discard, ReasonDefault)
	b.want(b.see("forward udp 192.0.2.53:53 -> 198.51.100.10:40000"), Discard, ReasonDefault)
	b.now += timeoutUDPBoth + 1
	b.want(b.see(reply), Discard, ReasonDefault)
}

func TestEchoReplyNeedsItsRequest(t *testing.T) {
	b := newBench(t, webServer(t))
	b.want(b.see("in icmp echo-reply 192.0.2.1 -> 192.0.2.2"), Discard, ReasonDefault)
	b.want(b.see("out icmp echo-request 192.0.2.2 -> 192.0.2.1"), Bypass, ReasonDefault)
	b.want(b.see("in icmp echo-reply 192.0.2.1 -> 192.0.2.2"), Bypass, ReasonFlow)
	b.want(b.see("in icmp echo-reply 192.0.2.1 -> 192.0.2.2", func(s *packet.Spec) { s.EchoID = 7 }), Discard, ReasonDefault)
}

func TestPingOpensNoWayForPings(t *testing.T) {
	p := webServer(t)
	p.Rules[2].In = false // nobody may ping this host
	for _, ends := range [][2]string{{"192.0.2.2", "192.0.2.1"}, {"192.0.2.1", "192.0.2.2"}} {
		b := newBench(t, p)
		b.want(b.see("out icmp echo-request "+ends[0]+" -> "+ends[1]), Bypass, ReasonDefault)
		b.want(b.see("in icmp echo-request "+ends[1]+" -> "+ends[0]), Discard, ReasonDefault)
		b.want(b.see("in icmp echo-reply "+ends[1]+" -> "+ends[0]), Bypass, ReasonFlow)
	}
}

func TestDefaultCountsByWhoOpened(t *testing.T) {
	b := newBench(t, webServer(t))
	b.see("out udp 198.51.100.10:40000 -> 192.0.2.53:53")
	b.see("in udp 192.0.2.53:53 -> 198.51.100.10:40000")
	if d := b.Stats().Defaults; d[Out].Packets != 2 || d[In].Packets != 0 {
		t.Errorf("defaults count %+v", d)
	}
}

func TestReloadDecidesAgain(t *testing.T) {
	b := newBench(t, webServer(t))
	web, ssh := "in tcp 203.0.113.9:40000 -> 198.51.100.10:443", "in tcp 192.0.2.9:40001 -> 198.51.100.10:22"
	b.want(b.see(web), Bypass, ReasonRule)
	b.want(b.see(ssh), Bypass, ReasonRule)
	p := webServer(t)
	p.Rules = p.Rules[1:] // the web is shut
	b.Reload(p)
	b.want(b.see(web, flags(packet.ACK)), Discard, ReasonDefault)
	b.want(b.see(web, flags(packet.ACK)), Discard, ReasonDefault)
	b.want(b.see(ssh, flags(packet.ACK)), Bypass, ReasonFlow)
	b.want(b.see("out tcp 198.51.100.10:22 -> 192.0.2.9:40001", flags(packet.SYN|packet.ACK)), Bypass, ReasonFlow)
	if n := b.Stats().Rules[0].Packets; n != 3 {
		t.Errorf("rule ssh counts %d packets over the reload, want 3", n)
	}
}

func TestReloadKeepsRepliesOfOutboundFlows(t *testing.T) {
	b := newBench(t, webServer(t))
	b.see("out tcp 198.51.100.10:40000 -> 203.0.113.9:443")
	b.Reload(webServer(t))
	b.want(b.see("in tcp 203.0.113.9:443 -> 198.51.100.10:40000", flags(packet.SYN|packet.ACK)), Bypass, ReasonFlow)
	p := webServer(t)
	p.Default[Out] = Discard
	b.Reload(p)
	b.want(b.see("in tcp 203.0.113.9:443 -> 198.51.100.10:40000", flags(packet.ACK)), Discard, ReasonDefault)
	if b.Stats().Flows != 0 {
		t.Error("the flow that the new policy cuts is still known")
	}
}

func TestTakeOver(t *testing.T) {
	b := newBench(t, webServer(t))
	in := b.input("in tcp 203.0.113.9:443 -> 198.51.100.10:40000", flags(packet.ACK))
	b.want(b.Judge(&in), Discard, ReasonDefault)
	in.Tracked, in.Reply = true, true
	r := b.Judge(&in)
	b.want(r, Bypass, ReasonDefault)
	if r.NewFlow || !r.Established {
		t.Error("a flow taken over is not new")
	}
	b.want(b.see("out tcp 198.51.100.10:40000 -> 203.0.113.9:443", flags(packet.ACK)), Bypass, ReasonFlow)

	in = b.input("out tcp 198.51.100.10:5432 -> 203.0.113.9:40000", flags(packet.ACK))
	in.Tracked, in.Reply = true, true // opened from outside, under an older policy
	b.want(b.Judge(&in), Discard, ReasonDefault)
}

func TestProtectedFlow(t *testing.T) {
	b := newBench(t, webServer(t))
	open := b.input("in tcp 10.0.0.7:50000 -> 10.0.0.5:445")
	open.SA = "lan"
	b.want(b.Judge(&open), Protect, ReasonRule)
	b.want(b.see("in tcp 10.0.0.7:50000 -> 10.0.0.5:445", flags(packet.ACK)), Discard, ReasonClear)
	other := b.input("in tcp 10.0.0.7:50000 -> 10.0.0.5:445", flags(packet.ACK))
	other.SA = "branch"
	b.want(b.Judge(&other), Discard, ReasonWrongSA)
}

func TestLimit(t *testing.T) {
	p := webServer(t)
	p.Rules[0].Limit = &Limit{Events: 10, Per: time.Minute, Burst: 2, ByRemote: true}
	b := newBench(t, p)
	try := func(addr string, port string) Result {
		return b.see("in tcp " + addr + ":" + port + " -> 198.51.100.10:443")
	}
	b.want(try("203.0.113.9", "1"), Bypass, ReasonRule)
	b.want(try("203.0.113.9", "2"), Bypass, ReasonRule)
	b.want(try("203.0.113.9", "3"), Discard, ReasonDefault)
	b.want(try("203.0.113.8", "3"), Bypass, ReasonRule)
	b.want(b.see("in tcp 203.0.113.9:2 -> 198.51.100.10:443", flags(packet.ACK)), Bypass, ReasonFlow)
	b.now += 6 * second
	b.want(try("203.0.113.9", "4"), Bypass, ReasonRule)
	b.want(try("203.0.113.9", "5"), Discard, ReasonDefault)
	b.now += 3600 * second
	for i := range 3 {
		want := Bypass
		if i == 2 {
			want = Discard // the bucket holds its burst, however long it rested
		}
		if r := try("203.0.113.9", string(rune('6'+i))); r.Verdict != want {
			t.Errorf("packet %d after a rest: %v", i, r.Verdict)
		}
	}
}

// What is judged alone opens no flow: the rules let each packet pass, and the
// answer to it they do not know.
func TestAlone(t *testing.T) {
	b := newBench(t, &Policy{Rules: []Rule{{Name: "ike", Action: Bypass, In: true, Selector: Selector{Protocols: []uint8{packet.UDP}, LocalPorts: []PortRange{{500, 500}}}}}})
	for range 3 {
		in := b.input("in udp 192.0.2.1:500 -> 192.0.2.2:500")
		in.Alone = true
		b.want(b.Judge(&in), Bypass, ReasonRule)
	}
	if n := b.Stats().Flows; n != 0 {
		t.Errorf("%d flows", n)
	}
	b.want(b.see("out udp 192.0.2.2:500 -> 192.0.2.1:500"), Discard, ReasonDefault)
	b.want(b.see("in udp 192.0.2.1:500 -> 192.0.2.2:500"), Bypass, ReasonRule)
	b.want(b.see("out udp 192.0.2.2:500 -> 192.0.2.1:500"), Bypass, ReasonFlow)
}

func TestLimitMemoryIsBounded(t *testing.T) {
	l := newLimiter(Limit{Events: 1, Per: time.Hour, Burst: 1, ByRemote: true})
	for i := range uint64(maxBuckets + 1000) {
		var q query
		q.key.Remote.Lo = i
		if took := l.take(&q, second); took != (i < maxBuckets) {
			t.Fatalf("address %d: %v", i, took)
		}
	}
	if len(l.buckets) > maxBuckets {
		t.Errorf("%d buckets", len(l.buckets))
	}
}

func TestAudit(t *testing.T) {
	p := webServer(t)
	p.Rules = append([]Rule{{Name: "trial", Action: Discard, Audit: true, In: true}}, p.Rules...)
	b := newBench(t, p)
	r := b.see("in tcp 203.0.113.9:40000 -> 198.51.100.10:443")
	b.want(r, Bypass, ReasonRule)
	if r.NAudits != 1 || r.Audits[0] != 0 || r.Rule != 1 {
		t.Errorf("audits %v (%d), rule %d", r.Audits, r.NAudits, r.Rule)
	}
	if b.Stats().Rules[0].Packets != 1 {
		t.Error("the audit rule does not count")
	}
}

func TestRelatedICMP(t *testing.T) {
	b := newBench(t, webServer(t))
	quoted := b.input("out udp 198.51.100.10:40000 -> 203.0.113.9:7").Packet.Bytes
	report := func(from, to string, quoted []byte) Result {
		return b.see("in icmp 3/3 "+from+" -> "+to, func(s *packet.Spec) { s.Payload = quoted })
	}
	b.want(report("203.0.113.9", "198.51.100.10", quoted), Discard, ReasonDefault)
	b.see("out udp 198.51.100.10:40000 -> 203.0.113.9:7")
	b.want(report("203.0.113.9", "198.51.100.10", quoted), Bypass, ReasonRelated)
	b.want(report("192.0.2.77", "198.51.100.10", quoted), Bypass, ReasonRelated) // a router on the way
	b.want(report("203.0.113.9", "198.51.100.11", quoted), Discard, ReasonDefault)
	b.want(report("203.0.113.9", "198.51.100.10", quoted[:20]), Discard, ReasonDefault)
	other := b.input("out udp 198.51.100.10:40001 -> 203.0.113.9:7").Packet.Bytes
	b.want(report("203.0.113.9", "198.51.100.10", other), Discard, ReasonDefault)
	never := b.input("in udp 203.0.113.9:7 -> 198.51.100.10:40000").Packet.Bytes
	b.want(report("198.51.100.10", "203.0.113.9", never), Discard, ReasonDefault)
}

func TestExplain(t *testing.T) {
	e := New(webServer(t), Options{})
	explain := func(line string) Explanation {
		tr, err := ParseTrial(line)
		if err != nil {
			t.Fatal(err)
		}
		x, err := tr.Explain(e)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	x := explain("in tcp 192.0.2.200:40000 -> 198.51.100.10:22")
	if len(x.Steps) != 7 || x.Steps[0].Why != "local port 22 is not 80, 443" ||
		x.Steps[1].Why != "remote address 192.0.2.200 is not in 192.0.2.0/25, 2001:db8:5::/48" ||
		x.Steps[3].Why != "direction is in, the rule is for out" {
		t.Errorf("%+v", x.Steps)
	}
	x = explain("in udp 192.0.2.200:40000 -> 198.51.100.10:80")
	if x.Steps[0].Why != "protocol is udp, the rule wants tcp" {
		t.Errorf("%+v", x.Steps[0])
	}
	x = explain("in tcp 192.0.2.1:40000 -> 198.51.100.10:22")
	if len(x.Steps) != 2 || !x.Steps[1].Matched || !strings.Contains(x.Fate, "passes") {
		t.Errorf("%+v", x)
	}
	x = explain("out tcp 198.51.100.10:443 -> 203.0.113.9:40000 established")
	if len(x.Steps) != 1 || !x.Steps[0].Matched {
		t.Errorf("a reply is explained by the packet that opened the flow: %+v", x.Steps)
	}
	x = explain("in tcp 10.0.0.7:50000 -> 10.0.0.5:445")
	if x.Outcome.Verdict != Protect || !strings.Contains(x.Fate, "in the clear") {
		t.Errorf("%+v", x)
	}
}
