package rules

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/engine/classify"
	"github.com/ipfw/ipfw/packet"
)

// slowReached is reach's slow twin: it tries every packet at the corners of
// every box against every rule in turn.
func slowReached(rules []engine.Rule, i int) bool {
	var grid [3][2][]classify.Key // by direction and family
	for d := range grid {
		for f := range grid[d] {
			var own []classify.Box
			cuts := [5]map[classify.Addr]bool{}
			for n := range cuts {
				cuts[n] = map[classify.Addr]bool{{}: true}
			}
			for k := range i + 1 {
				boxes, _ := rules[k].Boxes(engine.Direction(d), f == 1, int32(k))
				if k == i {
					own = boxes
				}
				for _, b := range boxes {
					small := func(n int, first, last uint16) {
						cuts[n][classify.Addr{Lo: uint64(first)}] = true
						cuts[n][classify.Addr{Lo: uint64(last) + 1}] = true
					}
					cuts[0][b.LocalFirst], cuts[0][next(b.LocalLast)] = true, true
					cuts[1][b.RemoteFirst], cuts[1][next(b.RemoteLast)] = true, true
					small(2, b.LocalPortFirst, b.LocalPortLast)
					small(3, b.RemotePortFirst, b.RemotePortLast)
					small(4, uint16(b.ProtoFirst), uint16(b.ProtoLast))
				}
			}
			for a := range cuts[0] {
				for b := range cuts[1] {
					for lp := range cuts[2] {
						for rp := range cuts[3] {
							for p := range cuts[4] {
								k := classify.Key{Local: a, Remote: b, LocalPort: uint16(lp.Lo), RemotePort: uint16(rp.Lo), Proto: uint8(p.Lo)}
								for n := range own {
									if own[n].Holds(&k) {
										grid[d][f] = append(grid[d][f], k)
										break
									}
								}
							}
						}
					}
				}
			}
		}
	}
	names := rules[i].Interfaces
	if len(names) == 0 {
		names = []string{"other0"}
	}
	for _, name := range names {
		for _, dscp := range append(rules[i].DSCP, 63)[:max(1, len(rules[i].DSCP))] {
			for d := range grid {
				for f := range grid[d] {
					for _, k := range grid[d][f] {
						if !slowTaken(rules[:i], d, f, k, name, dscp) {
							return true
						}
					}
				}
			}
		}
	}
	return false
}

func slowTaken(earlier []engine.Rule, d, f int, k classify.Key, name string, dscp uint8) bool {
	for e := range earlier {
		r := &earlier[e]
		if r.Audit || r.Limit != nil || !coversInterface(r, name) || len(r.DSCP) > 0 && r.DSCP[0] != dscp {
			continue
		}
		boxes, _ := r.Boxes(engine.Direction(d), f == 1, 0)
		for n := range boxes {
			if boxes[n].Holds(&k) {
				return true
			}
		}
	}
	return false
}

// pickSome gives none, one or two of the values.
func pickSome[T any](r *rand.Rand, values ...T) []T {
	var out []T
	for range r.IntN(3) {
		out = append(out, values[r.IntN(len(values))])
	}
	return out
}

func randomRule(r *rand.Rand, n int) engine.Rule {
	rule := engine.Rule{Name: fmt.Sprint("r", n), Action: engine.Verdict(r.IntN(2))}
	switch r.IntN(5) {
	case 0:
		rule.In, rule.Out = true, true
	case 1:
		rule.Forward, rule.OpenedBy = true, engine.Opener(r.IntN(3))
	default:
		rule.In = true
	}
	span := func(first, last string) engine.AddrRange {
		return engine.AddrRange{First: netip.MustParseAddr(first), Last: netip.MustParseAddr(last)}
	}
	addrs := []engine.AddrRange{span("0.0.0.0", "127.255.255.255"), span("128.0.0.0", "255.255.255.255"),
		span("10.0.0.0", "10.255.255.255"), span("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), span("2001:db8::", "2001:db8::ff")}
	rule.Local, rule.Remote = pickSome(r, addrs...), pickSome(r, addrs...)
	switch r.IntN(3) {
	case 0:
		rule.Protocols = pickSome[uint8](r, packet.TCP, packet.UDP, packet.GRE)
	case 1:
		rule.Protocols = []uint8{packet.TCP}
		rule.LocalPorts = pickSome(r, engine.PortRange{First: 0, Last: 1023}, engine.PortRange{First: 1024, Last: 65535}, engine.PortRange{First: 22, Last: 22})
		rule.RemotePorts = pickSome(r, engine.PortRange{First: 0, Last: 65535}, engine.PortRange{First: 53, Last: 53})
	}
	if r.IntN(6) == 0 {
		rule.Interfaces = []string{[]string{"eth0", "eth*", "wg0"}[r.IntN(3)]}
	}
	if r.IntN(8) == 0 {
		rule.DSCP = []uint8{uint8(46 * r.IntN(2))}
	}
	rule.Audit = r.IntN(10) == 0
	if r.IntN(10) == 0 {
		rule.Limit = &engine.Limit{Events: 1, Per: time.Second, Burst: 1}
	}
	return rule
}

func TestReachAgainstTwin(t *testing.T) {
	r := rand.New(rand.NewPCG(4301, 4303))
	found, checked := 0, 0
	for range 400 {
		rules := make([]engine.Rule, 2+r.IntN(5))
		for n := range rules {
			rules[n] = randomRule(r, n)
		}
		fast := newReach(rules)
		for i := range rules {
			if fast.empty(i) {
				continue
			}
			checked++
			slow, takers := slowReached(rules, i), fast.takers(i)
			if slow != (takers == nil) {
				t.Fatalf("rule %d reached: slow says %v, fast says taken by %v\n%+v", i, slow, takers, rules)
			}
			if takers != nil {
				found++
			}
		}
	}
	if found < 20 || checked < 1000 {
		t.Errorf("only %d of %d rules are never reached: the test tests nothing", found, checked)
	}
}

// A rule that would have to be cut into very many pieces is taken as reached,
// and in a time that does not depend on how many there would be.
func TestReachGivesUp(t *testing.T) {
	var b strings.Builder
	b.WriteString(shut)
	for i := range 6000 {
		fmt.Fprintf(&b, "rule \"r%d\" {\n  action = \"discard\"\n  direction = \"in\"\n  protocol = \"tcp\"\n  local_port = %d\n}\n", i, i*2)
	}
	b.WriteString("rule \"last\" {\n  action = \"bypass\"\n  direction = \"in\"\n  protocol = \"tcp\"\n  local_port = [")
	for i := range 1000 {
		fmt.Fprintf(&b, "%d, ", i*2)
	}
	p := load(t, b.String()+"]\n}\n")
	if len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0].Detail, `"last"`) || !strings.Contains(p.Warnings[0].Detail, "and 997 more") {
		t.Errorf("warnings: %v", p.Warnings)
	}
}

func TestSSHWarning(t *testing.T) {
	text := shut + `
rule "ssh" {
  action         = "bypass"
  direction      = "in"
  protocol       = "tcp"
  local_port     = 22
  interface      = "adm*"
  remote_address = ["192.0.2.0/24", "2001:db8::/32"]
}
rule "not-there" {
  action         = "discard"
  direction      = "in"
  remote_address = "198.51.100.0/24"
}
rule "sealed" {
  action         = "protect"
  with           = "x"
  direction      = "in"
  remote_address = "203.0.113.7"
}
ipsec "x" {
  mode = "transport"
  ike  = "x"
}
ike "x" {
  psk_file        = "nowhere"
  remote_endpoint = "203.0.113.7"
}
`
	for _, tt := range []struct {
		connection, iface string
		line              int // of the warning; 0: none
		want              string
	}{
		{"", "", 0, ""},
		{"192.0.2.7 40000 192.0.2.1 22", "adm0", 0, ""},
		{"2001:db8::7 40000 2001:db8::1 22", "adm0", 0, ""},
		{"::ffff:192.0.2.7 40000 ::ffff:192.0.2.1 22", "adm0", 0, ""},
		{"192.0.2.7 40000 192.0.2.1 22", "eth0", 2, "by the policy block's inbound default"},
		{"192.0.2.7 40000 192.0.2.1 2222", "adm0", 2, "would be discarded"},
		{"fe80::7%adm0 40000 fe80::1%adm0 22", "", 2, "(in tcp [fe80::7]:40000 -> [fe80::1]:22 on adm0)"},
		{"198.51.100.9 40000 192.0.2.1 22", "adm0", 14, `by rule "not-there" (<stdin>:14)`},
		{"203.0.113.7 40000 192.0.2.1 22", "adm0", 19, "discarded unless it comes protected"},
		{"nonsense", "adm0", 0, ""},
		{"a b c d", "adm0", 0, ""},
	} {
		p, d := Load([]string{"-"}, LoadOptions{Stdin: strings.NewReader(text), SSHConnection: tt.connection, SSHInterface: tt.iface})
		if p == nil {
			t.Fatal(d.Err())
		}
		line, detail := 0, ""
		for _, w := range p.Warnings {
			if w.Summary == "Your ssh session would be cut" {
				line, detail = w.Line, w.Detail
			}
		}
		if line != tt.line || !strings.Contains(detail, tt.want) {
			t.Errorf("%s on %s: line %d %q; want line %d %q", tt.connection, tt.iface, line, detail, tt.line, tt.want)
		}
	}
}

// A rule that protects by an interface that is not there protects nothing, and
// what it is for meets the rules behind it.
func TestWarnsOfMissingInterface(t *testing.T) {
	const text = `policy {
  inbound  = "discard"
  outbound = "discard"
  forward  = "bypass"
}
rule "offices" {
  action         = "protect"
  with           = "x"
  direction      = "forward"
  interface      = %s
  remote_address = "10.2.0.0/16"
}
ipsec "x" {
  mode = "tunnel"
  ike  = "x"
}
ike "x" {
  psk_file        = "nowhere"
  remote_endpoint = "203.0.113.7"
}
`
	for _, tt := range []struct {
		named string
		have  []string
		want  string
	}{
		{`"lan"`, []string{"lo", "lan0"}, `Rule "offices" protects what uses lan, and this host has lo, lan0: until it has one of that name, the rules behind decide.`},
		{`["lan", "wg*"]`, []string{"lo", "lan0"}, `Rule "offices" protects what uses lan, wg*, and this host has lo, lan0: until it has one of that name, the rules behind decide.`},
		{`"lan*"`, []string{"lo", "lan0"}, ""},
		{`["eth0", "lan0"]`, []string{"lo", "lan0"}, ""},
		{`"lan"`, nil, ""},
	} {
		p, d := Load([]string{"-"}, LoadOptions{Stdin: strings.NewReader(fmt.Sprintf(text, tt.named)), Interfaces: tt.have})
		if p == nil {
			t.Fatal(d.Err())
		}
		got := ""
		for _, w := range p.Warnings {
			if w.Summary == "No such interface" {
				got = w.Detail
			}
		}
		if got != tt.want {
			t.Errorf("%s, host has %q: %q, want %q", tt.named, tt.have, got, tt.want)
		}
	}
}
