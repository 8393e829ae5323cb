package engine

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
)

// gateway is a host between a LAN and a tunnel: nothing may go to 10.2.0.0/16 or
// fd00:2::/64 in the clear. Errors of ICMP are let through by rules of its own.
//
//	198.51.100.0/24, fd00:1::/64 == 192.0.2.1, 2001:db8::1 == SA "office" == 10.2.0.0/16, fd00:2::/64
func gateway(t testing.TB, clearErrors bool) *bench {
	far := addrs(t, "10.2.0.0/16", "fd00:2::/64")
	p := &Policy{ClearErrors: clearErrors, Rules: []Rule{
		{Name: "errors", Action: Bypass, In: true, Out: true, Forward: true, Selector: Selector{ICMP: []ICMPSel{
			{packet.ICMP, 3, -1}, {packet.ICMP, 5, -1}, {packet.ICMP, 11, -1}, {packet.ICMPv6, 2, -1}, {packet.ICMPv6, 3, -1}, {packet.ICMPv6, 137, -1}}}},
		{Name: "ike", Action: Bypass, In: true, Out: true, Selector: Selector{Protocols: []uint8{packet.UDP}, LocalPorts: ports(4500)}},
		{Name: "offices", Action: Protect, With: "office", Forward: true, Selector: Selector{Local: addrs(t, "198.51.100.0/24", "fd00:1::/64"), Remote: far}},
		{Name: "gateway", Action: Protect, With: "office", In: true, Out: true, Selector: Selector{Remote: far}},
		{Name: "lan", Action: Bypass, Forward: true, Selector: Selector{Interfaces: []string{"lan*"}, Remote: addrs(t, "10.9.0.0/16")}},
		{Name: "rest", Action: Protect, With: "office", Forward: true, Selector: Selector{Interfaces: []string{"wan*"}, Remote: addrs(t, "10.9.0.0/16")}},
	}}
	return &bench{TB: t, now: second, Engine: New(p, Options{
		Outbound: func(*Rule, *Input) *esp.SA { return new(esp.SA) },
		IsLocal: func(a netip.Addr) bool {
			return a == netip.MustParseAddr("192.0.2.1") || a == netip.MustParseAddr("2001:db8::1")
		},
	})}
}

// about is an ICMP message that quotes the packet of another line.
func (b *bench) about(line, quoted string) Input {
	b.Helper()
	q := b.input(quoted).Packet.Bytes
	in := b.input(line, func(s *packet.Spec) {
		s.Payload = q
		if s.ICMPType == 137 { // RFC 4861 section 4.6.3
			s.Payload = append(append(make([]byte, 32), 4, byte(1+(len(q)+7)/8), 0, 0, 0, 0, 0, 0), append(q, make([]byte, -len(q)&7)...)...)
		}
	})
	return in
}

// An ICMP error of this host that quotes what a rule protects leaves under the
// SA, whatever rules say of ICMP: if the quoted packet's flow is known, and if it
// is not. One that goes to where the quoted packet came from in the clear is for
// the rules; so is one that quotes what nobody protects.
func TestErrorsAboutProtectedTraffic(t *testing.T) {
	for _, row := range []struct {
		name, line, quoted string
		verdict            Verdict
		reason             Reason
		unprotected        bool
	}{
		{"too long for the LAN", "out icmp 3/4 192.0.2.1 -> 10.2.0.5", "forward udp 10.2.0.5:5000 -> 198.51.100.77:9", Protect, ReasonRelated, false},
		{"time exceeded", "out icmp 11/0 192.0.2.1 -> 10.2.0.5", "forward tcp 10.2.0.5:5000 -> 198.51.100.77:9", Protect, ReasonRelated, false},
		{"a ping through the tunnel", "out icmp 11/0 192.0.2.1 -> 10.2.0.5", "forward icmp echo-request 10.2.0.5 -> 198.51.100.77", Protect, ReasonRelated, false},
		{"another protocol", "out icmp 3/4 192.0.2.1 -> 10.2.0.5", "forward gre 10.2.0.5 -> 198.51.100.77", Protect, ReasonRelated, false},
		{"IPv6", "out icmpv6 2/0 2001:db8::1 -> fd00:2::5", "forward udp [fd00:2::5]:5000 -> [fd00:1::7]:9", Protect, ReasonRelated, false},
		{"IPv6, time exceeded", "out icmpv6 3/0 fd00:1::1 -> fd00:2::5", "forward tcp [fd00:2::5]:5000 -> [fd00:1::7]:9", Protect, ReasonRelated, false},
		{"to this host itself", "out icmp 3/3 192.0.2.1 -> 10.2.0.5", "in udp 10.2.0.5:5000 -> 192.0.2.1:9", Protect, ReasonRelated, false},
		{"a router of the LAN", "forward icmp 11/0 198.51.100.9 -> 10.2.0.5", "forward udp 10.2.0.5:5000 -> 198.51.100.77:9", Protect, ReasonRelated, false},
		{"a router beyond the LAN", "forward icmp 3/4 203.0.113.3 -> 10.2.0.5", "forward udp 10.2.0.5:5000 -> 198.51.100.77:9", Protect, ReasonRelated, false},
		{"a host of the LAN hears of its own packet", "out icmp 3/4 198.51.100.1 -> 198.51.100.77", "forward udp 198.51.100.77:9 -> 10.2.0.5:5000", Bypass, ReasonRule, false},
		{"nothing protects it", "out icmp 11/0 192.0.2.1 -> 203.0.113.5", "forward udp 203.0.113.5:7 -> 198.51.100.77:9", Bypass, ReasonRule, true},

		{"a clear one from the way", "in icmp 3/4 203.0.113.77 -> 192.0.2.1", "out udp 192.0.2.1:6000 -> 10.2.0.5:5000", Discard, ReasonClearError, false},
		{"to another address than that of the packet", "in icmp 3/4 203.0.113.77 -> 198.51.100.1", "out udp 192.0.2.1:6000 -> 10.2.0.5:5000", Discard, ReasonClearError, false},
		{"IPv6, from the way", "in icmpv6 2/0 2001:db8:7::7 -> 2001:db8::1", "out udp [2001:db8::1]:6000 -> [fd00:2::5]:5000", Discard, ReasonClearError, false},
		{"for a host of the LAN", "forward icmp 3/4 203.0.113.77 -> 198.51.100.77", "forward udp 198.51.100.77:9 -> 10.2.0.5:5000", Discard, ReasonClearError, false},
		{"about a sealed packet", "in icmp 3/4 203.0.113.77 -> 192.0.2.1", "out esp 192.0.2.1 -> 10.2.0.5", Bypass, ReasonRule, true},
		{"about one in UDP", "in icmp 3/4 203.0.113.77 -> 192.0.2.1", "out udp 192.0.2.1:4500 -> 10.2.0.5:4500", Bypass, ReasonRule, true},
	} {
		for _, known := range []bool{false, true} {
			b := gateway(t, false)
			if known && row.unprotected {
				continue
			}
			if known { // as it came out of the SA, or went into it
				quoted := b.input(row.quoted)
				if quoted.Dir != Out && (quoted.Packet.Src == netip.MustParseAddr("10.2.0.5") || quoted.Packet.Src == netip.MustParseAddr("fd00:2::5")) {
					quoted.SA = "office"
				}
				b.want(b.Judge(&quoted), Protect, ReasonRule)
			}
			in := b.about(row.line, row.quoted)
			if r := b.Judge(&in); r.Verdict != row.verdict || r.Reason != row.reason || (r.Verdict == Protect) != (r.sa != nil) {
				t.Errorf("%s (flow known: %v): %v (%v), want %v (%v)", row.name, known, r.Verdict, r.Reason, row.verdict, row.reason)
			}
		}
	}
}

// Redirects and source quench open no path past a protect rule either, and what
// cannot be read is not trusted.
func TestMessagesThatQuoteProtectedTraffic(t *testing.T) {
	b := gateway(t, false)
	for _, row := range []struct {
		line, quoted string
		verdict      Verdict
	}{
		{"out icmp 5/1 192.0.2.1 -> 10.2.0.5", "forward udp 10.2.0.5:5000 -> 198.51.100.77:9", Protect},
		{"out icmpv6 137/0 2001:db8::1 -> fd00:2::5", "forward udp [fd00:2::5]:5000 -> [fd00:1::7]:9", Protect},
		{"in icmp 5/1 203.0.113.77 -> 192.0.2.1", "out udp 192.0.2.1:6000 -> 10.2.0.5:5000", Discard},
		{"in icmpv6 137/0 fe80::1 -> 2001:db8::1", "out udp [2001:db8::1]:6000 -> [fd00:2::5]:5000", Discard},
		// A rule may hold by an interface that the message does not tell of.
		{"out icmp 11/0 192.0.2.1 -> 10.9.0.5", "forward udp 10.9.0.5:5000 -> 198.51.100.77:9", Protect},
	} {
		in := b.about(row.line, row.quoted)
		if r := b.Judge(&in); r.Verdict != row.verdict {
			t.Errorf("%s: %v (%v), want %v", row.line, r.Verdict, r.Reason, row.verdict)
		}
	}
	whole := b.input("forward udp 10.2.0.5:5000 -> 198.51.100.77:9").Packet.Bytes
	for n := range len(whole) {
		in := b.input("out icmp 11/0 192.0.2.1 -> 10.2.0.5", func(s *packet.Spec) { s.Payload = whole[:n] })
		if r := b.Judge(&in); n > 0 && r.Verdict == Bypass {
			t.Errorf("%d bytes of a protected packet leave in the clear", n)
		}
	}
	later := b.input("forward udp 10.2.0.5:5000 -> 198.51.100.77:9", func(s *packet.Spec) {
		s.Fragment, s.FragOffset, s.Payload = true, 800, make([]byte, 80)
	}).Packet.Bytes
	for line, v := range map[string]Verdict{"out icmp 11/0 192.0.2.1 -> 10.2.0.5": Discard, "out icmp 11/0 192.0.2.1 -> 10.3.0.5": Bypass} {
		in := b.input(line, func(s *packet.Spec) { s.Payload = later })
		if v == Bypass {
			in.Packet.Bytes[in.Packet.Payload+13] = 3 // from 10.3.0.5
		}
		if r := b.Judge(&in); r.Verdict != v {
			t.Errorf("%s about a later fragment: %v (%v)", line, r.Verdict, r.Reason)
		}
	}
}

// Policy may leave it to the rules what comes in, and never what goes out. Out of
// its SA an error about a protected flow is always welcome.
func TestClearErrors(t *testing.T) {
	for _, known := range []bool{false, true} {
		b := gateway(t, true)
		quoted := b.input("out udp 192.0.2.1:6000 -> 10.2.0.5:5000")
		if known {
			b.want(b.Judge(&quoted), Protect, ReasonRule)
		}
		in := b.about("in icmp 3/4 203.0.113.77 -> 192.0.2.1", "out udp 192.0.2.1:6000 -> 10.2.0.5:5000")
		b.want(b.Judge(&in), Bypass, ReasonRule)
		in = b.about("out icmp 3/4 192.0.2.1 -> 10.2.0.5", "forward udp 10.2.0.5:5000 -> 198.51.100.77:9")
		b.want(b.Judge(&in), Protect, ReasonRelated)
	}
	b := gateway(t, false)
	quoted := b.input("out udp 192.0.2.1:6000 -> 10.2.0.5:5000")
	b.want(b.Judge(&quoted), Protect, ReasonRule)
	in := b.about("in icmp 3/4 203.0.113.77 -> 192.0.2.1", "out udp 192.0.2.1:6000 -> 10.2.0.5:5000")
	in.SA = "office"
	b.want(b.Judge(&in), Protect, ReasonRelated)
}

// protecting agrees with a walk over all rules.
func TestProtectingAgainstLinear(t *testing.T) {
	found := 0
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 9))
		p := randomPolicy(r, 1+r.IntN(40))
		for i := range p.Rules {
			p.Rules[i].Action = Verdict(r.IntN(3))
			if r.IntN(8) == 0 && p.Rules[i].Action != Protect {
				p.Rules[i].Limit = &Limit{Events: 1, Per: 1, Burst: 1}
			}
		}
		s := compile(p, nil)
		for range 1000 {
			q := randomQuery(r)
			want := NoRule
			for i := range p.Rules {
				rule := p.Rules[i]
				if rule.Audit {
					continue
				}
				if rule.Action == Protect {
					rule.Interfaces, rule.DSCP, rule.RelatedTo = nil, nil, nil
					if rule.mismatch(&q) == matches {
						want = int32(i)
						break
					}
				} else if rule.mismatch(&q) == matches && len(rule.Interfaces)+len(rule.DSCP)+len(rule.RelatedTo) == 0 && rule.Limit == nil {
					break
				}
			}
			if got := s.protecting(&q); got != want {
				t.Fatalf("seed %d: %+v: rule %d, the twin says %d", seed, q, got, want)
			}
			if want >= 0 {
				found++
			}
		}
	}
	if found < 1000 {
		t.Errorf("only %d questions met a protect rule", found)
	}
}
