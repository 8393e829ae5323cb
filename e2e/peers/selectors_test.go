package peers

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/ipfw/ipfw/ike"
)

// selectorRows are selectors that few peers have: more than 64 of one side, and
// OPAQUE ports.
func selectorRows(call string) (rows []row) {
	wide := func(_ *ike.Peer, c *ike.Child) {
		c.LocalTS = []ike.TrafficSelector{ike.SelectorOf(netip.MustParsePrefix("10.1.0.0/16")), ike.SelectorOf(netip.MustParsePrefix("fd01::/16"))}
	}
	local := fmt.Sprintf("local_ts = %s, %s\n        ", innerTheirs[0], innerTheirs[1])
	for _, n := range []int{64, 65, 100, 255} {
		ts := fmt.Sprintf("remote_ts = %s, %s", innerOurs[0], innerOurs[1])
		for i := range n - 2 {
			ts += fmt.Sprintf(", 10.1.%d.%d/32", 1+i/100, 1+2*(i%100))
		}
		rows = append(rows, row{name: fmt.Sprintf("%d networks of ours", n), call: call, ts: local + ts, ours: wide, after: func(p *play) {
			p.selectors(func(list []ike.TrafficSelector) bool { return len(list) == n })
		}})
	}
	return append(rows, row{name: "OPAQUE ports beside others", call: call, ours: wide,
		ts: local + fmt.Sprintf("remote_ts = %s[icmp], %s[ipv6-icmp], %s[udp/opaque]", innerOurs[0], innerOurs[1], innerOurs[0]),
		after: func(p *play) {
			p.selectors(func(list []ike.TrafficSelector) bool {
				return len(list) == 3 && slices.ContainsFunc(list, ike.TrafficSelector.Opaque)
			})
		}})
}

// selectors looks at those of our side of the child.
func (p *play) selectors(good func([]ike.TrafficSelector) bool) {
	p.Helper()
	p.us.mu.Lock()
	defer p.us.mu.Unlock()
	for _, st := range p.us.core.Status() {
		for _, ch := range st.Children {
			if !good(ch.LocalTS) {
				p.Errorf("%d selectors: %v", len(ch.LocalTS), ch.LocalTS)
			}
		}
	}
}

// splitDNS looks for what a gateway says of names.
func splitDNS(p *play) {
	if !slices.ContainsFunc(p.us.events(), func(e ike.Event) bool {
		return e.Kind == ike.Address && contains(e.Detail, "dns 10.2.0.53 domain corp.example")
	}) {
		p.Error("the domain of the gateway has not come")
	}
}
