package rules

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
)

// warn adds what is allowed but hardly meant.
func (l *loader) warn() {
	p := l.policy
	seen := newReach(p.Engine.Rules)
	at := 0 // in Engine.Rules
	for i := range p.rules {
		r := &p.rules[i]
		for _, arg := range r.empty {
			l.caution(l.places[r.Name], "Rule matches nothing", "%s of rule %q is an empty list: no packet matches, and the rule is left out.", arg, r.Name)
		}
		if r.disabled || len(r.empty) > 0 {
			continue
		}
		here := at
		at++
		if r.Essential {
			continue
		}
		if why := contradiction(&r.Rule); why != "" || seen.empty(here) {
			if why == "" {
				why = "its selectors exclude one another"
			}
			l.caution(l.places[r.Name], "Rule matches nothing", "No packet can match rule %q: %s.", r.Name, why)
			continue
		}
		if takers := seen.takers(here); takers != nil {
			advice := "Move it up, or remove it."
			if p.Engine.Rules[takers[0]].Essential && p.Settings.Essentials {
				advice = "ipfw's own rules come first, unless the policy block says essentials = false."
			}
			l.caution(l.places[r.Name], "Rule never reached", "No packet can reach rule %q: %s. %s", r.Name, takersText(p, takers), advice)
		}
	}
	for _, s := range p.IPsec {
		if !l.uses["ipsec "+s.Name] {
			l.caution(l.defined("ipsec", s.Name), "Block not used", "No rule says with = %q: this ipsec block protects nothing.", s.Name)
		}
	}
	for _, s := range p.IKE {
		if !l.uses["ike "+s.Name] {
			l.caution(l.defined("ike", s.Name), "Block not used", "No ipsec block says ike = %q: these keys are for nobody.", s.Name)
		}
	}
	l.warnRelated()
	l.warnIKE()
	l.warnInterfaces()
	if l.opts.SSHConnection != "" {
		l.warnSSH()
	}
}

// takersText names the rules in the way; of many, the first few.
func takersText(p *Policy, takers []int) string {
	names := firstOf(takers, func(e int) string { return quoted(p.Engine.Rules[e]) })
	if len(names) == 1 {
		return "rule " + names[0] + ", which comes before it, takes them all"
	}
	return "rules " + strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1] + ", which come before it, take them all between them"
}

// firstOf gives the words for the first three of a list, and how many more there are.
func firstOf[T any](list []T, word func(T) string) (words []string) {
	const most = 3
	for i, x := range list {
		if i == most && len(list) > most+1 {
			return append(words, fmt.Sprintf("%d more", len(list)-most))
		}
		words = append(words, word(x))
	}
	return words
}

// contradiction says why the addresses of a rule do not go together, or with its
// protocol, or with what it lets in.
func contradiction(r *engine.Rule) string {
	s := &r.Selector
	if r.AnswersMulticast > 0 && len(s.Local) > 0 && !slices.ContainsFunc(s.Local, func(a engine.AddrRange) bool { return !isGroups(a) }) {
		return "answers to multicast go to this host's own address, and its local_address is a group's"
	}
	local4, local6 := families(s.Local)
	remote4, remote6 := families(s.Remote)
	v4, v6 := local4 && remote4, local6 && remote6
	if !v4 && !v6 {
		return "local_address and remote_address are of different families"
	}
	for _, p := range s.Protocols {
		if (p != packet.ICMP || v4) && (p != packet.ICMPv6 || v6) {
			return ""
		}
	}
	switch {
	case len(s.Protocols) == 0:
		return ""
	case v6:
		return "ICMP is for IPv4, and its addresses are IPv6; write protocol = \"icmpv6\""
	default:
		return "ICMPv6 is for IPv6, and its addresses are IPv4; write protocol = \"icmp\""
	}
}

// isGroups says that a range holds none but multicast groups and 255.255.255.255.
func isGroups(a engine.AddrRange) bool {
	return a.First.IsMulticast() && a.Last.IsMulticast() || a.First == a.Last && a.First == netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// families says of which families a list of addresses is; an empty one is of both.
func families(list []engine.AddrRange) (v4, v6 bool) {
	for _, a := range list {
		v4, v6 = v4 || a.First.Is4(), v6 || a.First.Is6()
	}
	return v4 || len(list) == 0, v6 || len(list) == 0
}

// warnInterfaces warns of rules that protect nothing for want of their interface:
// what they are for meets the rules behind them.
func (l *loader) warnInterfaces() {
	for i := range l.policy.Engine.Rules {
		r := &l.policy.Engine.Rules[i]
		if r.Action == engine.Protect && len(r.Interfaces) > 0 && len(l.opts.Interfaces) > 0 && !slices.ContainsFunc(l.opts.Interfaces, r.Names) {
			l.caution(l.places[r.Name], "No such interface", "Rule %q protects what uses %s, and this host has %s: until it has one of that name, the rules behind decide.",
				r.Name, strings.Join(r.Interfaces, ", "), strings.Join(l.opts.Interfaces, ", "))
		}
	}
}

// warnSSH warns when the policy would not let the ssh session in that the
// user sits in.
func (l *loader) warnSSH() {
	line, ok := sshTrial(l.opts.SSHConnection, l.opts.SSHInterface)
	if !ok {
		return
	}
	o, err := runTrial(l.policy.DryRun(engine.Options{}), line)
	if err != nil || o.Verdict == engine.Bypass {
		return
	}
	at, by := l.inbound, "the policy block's inbound default"
	if o.Rule != nil {
		at, by = l.places[o.Rule.Name], "rule "+quoted(*o.Rule)
	}
	what := "discarded"
	if o.Verdict == engine.Protect {
		what = "discarded unless it comes protected"
	}
	l.caution(at, "Your ssh session would be cut", "You are connected by ssh, and a connection like yours (%s) would be %s by %s.", line, what, by)
}

// sshTrial makes a trial packet of $SSH_CONNECTION.
func sshTrial(connection, iface string) (string, bool) {
	f := strings.Fields(connection)
	if len(f) != 4 {
		return "", false
	}
	client, err1 := netip.ParseAddr(f[0])
	server, err2 := netip.ParseAddr(f[2])
	if err1 != nil || err2 != nil {
		return "", false
	}
	zone := server.Zone()
	client, server = client.Unmap().WithZone(""), server.Unmap().WithZone("")
	for _, name := range []string{zone, interfaceOf(server)} {
		if iface == "" {
			iface = name
		}
	}
	end := func(a netip.Addr, port string) string { return net.JoinHostPort(a.String(), port) }
	line := "in tcp " + end(client, f[1]) + " -> " + end(server, f[3])
	if iface != "" {
		line += " on " + iface
	}
	return line, true
}

// interfaceOf gives the interface that has the address, or "": packets for it
// come in there as a rule, and rules may speak of it.
func interfaceOf(a netip.Addr) string {
	list, err := net.Interfaces()
	if err != nil {
		return ""
	}
	for _, i := range list {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, n := range addrs {
			if p, err := netip.ParsePrefix(n.String()); err == nil && p.Addr() == a {
				return i.Name
			}
		}
	}
	return ""
}
