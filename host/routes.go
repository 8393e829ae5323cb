package host

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/rules"
)

// maxRouteTrials bounds for how many networks the kernel is asked at a time.
const maxRouteTrials = 64

// unrouted warns of networks behind tunnels to which the kernel has no route: it
// drops what should go there before ipfw sees it, and counts nothing that people
// look at. hasRoute asks the kernel.
func unrouted(p *rules.Policy, hasRoute func(netip.Addr) bool) (list []Diagnostic) {
	asked, everywhere := map[engine.AddrRange]bool{}, engine.Everywhere()
	warn := func(to engine.AddrRange, what string) {
		if asked[to] || slices.Contains(everywhere[:], to) || len(asked) == maxRouteTrials {
			return
		}
		asked[to] = true
		host := to.First
		if to.Last != host {
			host = host.Next() // the first of a network may be everybody's
		}
		if hasRoute(host) {
			return
		}
		list = append(list, Diagnostic{Severity: "warning", Summary: "No route",
			Detail: fmt.Sprintf("No route to %s, %s: the kernel drops what should go there before ipfw sees it. Any route will do, such as a default route.", to, what)})
	}
	for i := range p.Engine.Rules {
		r := &p.Engine.Rules[i]
		if r.Action != engine.Protect || r.Audit || !r.Out && !r.Forward || r.Forward && r.OpenedBy == engine.OpenedByRemote {
			continue
		}
		s, ok := p.FindIPsec(r.With)
		if !ok || !s.Tunnel {
			continue
		}
		if k, ok := p.FindIKE(s.IKE); ok && k.RequestAddress {
			continue // routes come with the address
		}
		for _, to := range r.Remote {
			warn(to, fmt.Sprintf("which rule %q (%s) protects", r.Name, r.Place))
		}
	}
	for i := range p.IKE { // answers to who was lent an address
		for _, to := range p.IKE[i].Pool {
			warn(engine.RangeOf(to), fmt.Sprintf("from which ike %q (%s) lends addresses", p.IKE[i].Name, p.IKE[i].Place))
		}
	}
	return list
}

// tellRoutes writes an event about networks without a route. d.change is held, or
// nobody else is there yet.
func (d *daemon) tellRoutes(l *loaded) {
	if list := unrouted(l.Policy, d.firewall.HasRoute); len(list) > 0 {
		d.ring.add(&Event{Kind: KindRoute, Count: uint64(len(list)), Diagnostics: list, Message: "what policy sends through a tunnel does not get there"})
	}
}
