package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
)

// oraclePolicy is a random policy of what nftables can say too.
func oraclePolicy(r *rand.Rand) *engine.Policy {
	p := new(engine.Policy)
	p.Default[engine.In] = engine.Verdict(r.IntN(2))
	p.Default[engine.Forward] = engine.Verdict(r.IntN(2))
	p.Default[engine.Out] = engine.Bypass
	for i := range 3 + r.IntN(12) {
		rule := engine.Rule{Name: fmt.Sprint("r", i), Action: engine.Verdict(r.IntN(2))}
		rule.In = r.IntN(2) == 0
		rule.Forward = !rule.In
		rule.OpenedBy = engine.Opener(r.IntN(3))
		rule.Selector = oracleSelector(r)
		p.Rules = append(p.Rules, rule)
	}
	return p
}

func oracleSelector(r *rand.Rand) (s engine.Selector) {
	addr := func(nets4 []byte, nets6 []byte) engine.AddrRange {
		a, b := byte(1+r.IntN(8)), byte(1+r.IntN(8))
		a, b = min(a, b), max(a, b)
		n := r.IntN(len(nets4))
		if r.IntN(2) == 0 {
			return engine.AddrRange{First: netip.AddrFrom4([4]byte{10, nets4[n], 0, a}), Last: netip.AddrFrom4([4]byte{10, nets4[n], 0, b})}
		}
		return engine.AddrRange{First: netip.AddrFrom16([16]byte{0xfd, nets6[n], 15: a}), Last: netip.AddrFrom16([16]byte{0xfd, nets6[n], 15: b})}
	}
	port := func() engine.PortRange {
		a, b := uint16(1+r.IntN(12)), uint16(1+r.IntN(12))
		return engine.PortRange{First: min(a, b), Last: max(a, b)}
	}
	several := func(f func()) {
		for range r.IntN(3) * r.IntN(2) {
			f()
		}
	}
	several(func() {
		s.Local = append(s.Local, addr([]byte{66, 77, 88}, []byte{0x66, 0x77, 0x88}))
	})
	several(func() {
		s.Remote = append(s.Remote, addr([]byte{66, 77, 88}, []byte{0x66, 0x77, 0x88}))
	})
	several(func() {
		s.Protocols = append(s.Protocols, []uint8{packet.TCP, packet.UDP, packet.ICMP, packet.ICMPv6, packet.SCTP}[r.IntN(5)])
	})
	switch r.IntN(5) {
	case 0:
		several(func() { s.LocalPorts = append(s.LocalPorts, port()) })
	case 1:
		several(func() { s.RemotePorts = append(s.RemotePorts, port()) })
	case 2:
		s.ICMP = []engine.ICMPSel{{Protocol: packet.ICMP, Type: 8, Code: -1}, {Protocol: packet.ICMPv6, Type: 128, Code: -1}}
		s.Protocols = nil
	}
	if r.IntN(5) == 0 {
		s.DSCP = []uint8{uint8(r.IntN(4)), uint8(r.IntN(4))}
	}
	if r.IntN(5) == 0 {
		s.Interfaces = []string{[]string{"s0", "s1", "s*", "x*"}[r.IntN(4)]}
	}
	return s
}

// nftablesOf says the same as the policy in the language of nft. What a rule's
// lists leave open is told apart by family and, on the forward path, by which
// side is local; each of these is a rule of its own with the same verdict.
func nftablesOf(p *engine.Policy) string {
	var b strings.Builder
	b.WriteString("add table inet oracle\ndelete table inet oracle\ntable inet oracle {\n")
	b.WriteString(" set seen4 { typeof ip id; size 65535; flags dynamic; }\n set seen6 { typeof ip6 flowlabel; size 65535; flags dynamic; }\n")
	for _, hook := range []string{"input", "forward"} {
		fmt.Fprintf(&b, " chain %s {\n  type filter hook %s priority 0; policy drop;\n", hook, hook)
		b.WriteString("  icmpv6 type { 133, 134, 135, 136, 143 } drop\n")
		d := engine.In
		if hook == "forward" {
			d = engine.Forward
		}
		for i := range p.Rules {
			for _, line := range nftablesRules(&p.Rules[i], d) {
				fmt.Fprintf(&b, "  %s comment \"%s\"\n", line, p.Rules[i].Name)
			}
		}
		fmt.Fprintf(&b, "  %s\n }\n", nftVerdict(p.Default[d]))
		fmt.Fprintf(&b, " chain %s_seen {\n  type filter hook %s priority 10;\n  meta nfproto ipv4 update @seen4 { ip id }\n  meta nfproto ipv6 update @seen6 { ip6 flowlabel }\n", hook, hook)
		b.WriteString("  drop\n }\n") // seen is enough: no answers, no flows
	}
	b.WriteString("}\n")
	return b.String()
}

func nftVerdict(v engine.Verdict) string {
	if v == engine.Bypass {
		return "accept"
	}
	return "drop"
}

func nftablesRules(r *engine.Rule, d engine.Direction) (lines []string) {
	if d == engine.In && !r.In || d == engine.Forward && !r.Forward {
		return nil
	}
	for _, family := range []string{"ip", "ip6"} {
		if d == engine.In {
			lines = append(lines, nftRule(r, family, "daddr", "saddr", "dport", "sport", []string{"iifname"})...)
			continue
		}
		for _, dev := range []string{"iifname", "oifname"} {
			if r.OpenedBy != engine.OpenedByRemote {
				lines = append(lines, nftRule(r, family, "saddr", "daddr", "sport", "dport", []string{dev})...)
			}
			if r.OpenedBy != engine.OpenedByLocal {
				lines = append(lines, nftRule(r, family, "daddr", "saddr", "dport", "sport", []string{dev})...)
			}
		}
	}
	return lines
}

func nftRule(r *engine.Rule, family, local, remote, localPort, remotePort string, dev []string) []string {
	var w []string
	w = append(w, "meta nfproto "+map[string]string{"ip": "ipv4", "ip6": "ipv6"}[family])
	for _, side := range []struct {
		field string
		list  []engine.AddrRange
	}{{local, r.Local}, {remote, r.Remote}} {
		if len(side.list) == 0 {
			continue
		}
		var set []string
		for _, a := range side.list {
			if a.First.Is6() == (family == "ip6") {
				set = append(set, span(a.First.String(), a.Last.String()))
			}
		}
		if set == nil {
			return nil // the other family only
		}
		w = append(w, family+" "+side.field+" "+nftSet(set))
	}
	protos := r.Protocols
	if len(r.LocalPorts)+len(r.RemotePorts) > 0 {
		ported := []uint8{packet.TCP, packet.UDP, packet.SCTP}
		if len(protos) > 0 {
			ported = slices.DeleteFunc(ported, func(p uint8) bool { return !slices.Contains(protos, p) })
		}
		if len(ported) == 0 {
			return nil
		}
		protos = ported
	}
	if len(protos) > 0 {
		var set []string
		for _, p := range protos {
			set = append(set, fmt.Sprint(p))
		}
		w = append(w, "meta l4proto "+nftSet(set))
	}
	for _, side := range []struct {
		field string
		list  []engine.PortRange
	}{{localPort, r.LocalPorts}, {remotePort, r.RemotePorts}} {
		if len(side.list) == 0 {
			continue
		}
		var set []string
		for _, p := range side.list {
			set = append(set, span(fmt.Sprint(p.First), fmt.Sprint(p.Last)))
		}
		w = append(w, "th "+side.field+" "+nftSet(set))
	}
	if len(r.ICMP) > 0 {
		if family == "ip" {
			w = append(w, "icmp type echo-request")
		} else {
			w = append(w, "icmpv6 type echo-request")
		}
	}
	if len(r.DSCP) > 0 {
		w = append(w, fmt.Sprintf("%s dscp { %d, %d }", family, r.DSCP[0], r.DSCP[1]))
	}
	if len(r.Interfaces) > 0 {
		w = append(w, dev[0]+" \""+r.Interfaces[0]+"\"")
	}
	return []string{strings.Join(append(w, nftVerdict(r.Action)), " ")}
}

func span(a, b string) string {
	if a == b {
		return a
	}
	return a + "-" + b
}

// nftSet writes a set without duplicates; one element needs no braces.
func nftSet(list []string) string {
	slices.Sort(list)
	list = slices.Compact(list)
	if len(list) == 1 {
		return list[0]
	}
	return "{ " + strings.Join(list, ", ") + " }"
}
