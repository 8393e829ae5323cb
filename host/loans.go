package host

import (
	"fmt"
	"net/netip"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/ike"
)

// loans are the addresses that peers have lent this host (`request_address`),
// each with the children that use it. An address is on the device of protected
// packets for as long as there is one.
type loans map[netip.Addr]map[uint64]bool

// begin takes the addresses of a child in use. Networks are reached from them,
// but not such as the peer itself is in: what is sealed has to find its way to
// the peer, and a route by the tunnel would lead it in a circle.
func (l *loans) begin(f firewall, c *ike.ChildSA, tell func(string)) {
	if *l == nil {
		*l = loans{}
	}
	for _, a := range c.Assigned {
		if (*l)[a] == nil {
			(*l)[a] = map[uint64]bool{}
		}
		(*l)[a][c.ID] = true
		if len((*l)[a]) > 1 {
			continue
		}
		var networks []netip.Prefix
		for _, t := range c.RemoteTS {
			for _, p := range prefixesOf(engine.AddrRange{First: t.First, Last: t.Last}) {
				if p.Contains(c.Remote) {
					tell(fmt.Sprintf("%s, which ike %q has lent this host, is not used towards %s by itself, because %s is in there: add the routes that you want, by device ipfw0", a, c.Peer, p, c.Remote))
					continue
				}
				networks = append(networks, p)
			}
		}
		if err := f.Assign(a, networks); err != nil {
			tell(fmt.Sprintf("%s, which ike %q has lent this host, cannot be used: %s", a, c.Peer, err))
		}
	}
}

// end gives back what no child uses any more.
func (l loans) end(f firewall, id uint64, tell func(string)) {
	for a, users := range l {
		if !users[id] {
			continue
		}
		delete(users, id)
		if len(users) > 0 {
			continue
		}
		delete(l, a)
		if err := f.Unassign(a); err != nil {
			tell(fmt.Sprintf("an address that a peer had lent this host cannot be given back: %s", err))
		}
	}
}
