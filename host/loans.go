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

// unfit says why an address that a peer lends this host cannot be taken; empty: it
// can. One that is lent already stays when the peer is called anew.
func (x *exchange) unfit(a, peer netip.Addr) string {
	switch {
	case len(x.loans[a]) > 0:
		return ""
	case x.d.firewall.IsLocal(a):
		return "it is this host's own"
	case x.d.firewall.RouterFor(peer) == a:
		return "it is that of this host's router"
	}
	return ""
}

// begin takes the addresses of a child in use. Networks are reached from them.
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
			l.moved(f, c, tell)
			continue
		}
		var networks []netip.Prefix
		for _, t := range c.RemoteTS {
			networks = append(networks, prefixesOf(engine.AddrRange{First: t.First, Last: t.Last})...)
		}
		if err := f.Assign(a, networks, c.Remote); err != nil {
			tell(fmt.Sprintf("%s, which ike %q has lent this host, cannot be used for all that it is for: %s", a, c.Peer, err))
		}
	}
}

// moved follows the peer of a child to another address.
func (l loans) moved(f firewall, c *ike.ChildSA, tell func(string)) {
	for _, a := range c.Assigned {
		if !l[a][c.ID] {
			continue
		}
		if err := f.PeerMoved(a, c.Remote); err != nil {
			tell(fmt.Sprintf("the way to ike %q at %s, which has lent this host %s, cannot be kept: %s", c.Peer, c.Remote, a, err))
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
