package ike

import (
	"errors"
	"net/netip"
	"slices"
)

// Flow is the two sides of a packet that needs a child, as traffic selectors.
// The peer is offered them first, so that it knows what is wanted when it takes
// a part of the offer (RFC 7296 section 2.9).
type Flow struct{ Local, Remote TrafficSelector }

// within says that one selector of each side holds the packet.
func (f Flow) within(local, remote []TrafficSelector) bool {
	in := func(t TrafficSelector, list []TrafficSelector) bool {
		return t.valid() && slices.ContainsFunc(list, func(l TrafficSelector) bool { return contains(l, t) })
	}
	return in(f.Local, local) && in(f.Remote, remote)
}

// wish is a child that is wanted, and the packet that wants it.
type wish struct {
	cfg    *Child
	packet Flow
}

// maxBeside is how many children of one name an IKE SA gets because the peer
// takes less of each offer than the policy has for it.
const maxBeside = 8

// granted says that there is nothing to ask for: the child is there, and holds
// the packet, or the peer will not have it hold the packet.
func (sa *ikeSA) granted(w wish) bool {
	n := 0
	for _, ch := range sa.children {
		if ch.cfg != w.cfg || ch.state == chDeleting {
			continue
		}
		if w.packet == (Flow{}) || ch.beside || w.packet.within(ch.LocalTS, ch.RemoteTS) {
			return true
		}
		n++
	}
	return n >= maxBeside || n > 0 && !w.packet.within(sa.localTS(w.cfg), sa.remoteTS(w.cfg))
}

// lends says that a child is one for callers to whom this side lends an address.
func (p *Peer) lends(ch *Child) bool { return len(p.Pools) > 0 && ch.Mode == Tunnel }

var errHasToCall = errors.New("the peer gets its address from the pool of this side, so it has to call")

// want makes a child over an IKE SA that is up or on its way, or over a new
// one.
func (c *Core) want(p *Peer, w wish, local, remote netip.AddrPort, tries int) {
	var home *ikeSA
	for _, sa := range c.index.at[spot{p, remote.Addr()}] {
		if sa.surplus || sa.state > stUp || sa.unlent(w.cfg) || sa.unshown() && sa.ownAddress(w.cfg) || sa.remote.Addr() != remote.Addr() && sa.callee != remote {
			continue
		}
		if sa.granted(w) || sa.plans(w.cfg) {
			return
		}
		if home == nil || sa.id < home.id {
			home = sa
		}
	}
	switch {
	case home == nil && p.lends(w.cfg):
		c.tell(Event{Kind: Failed, Failure: NoAddress, Peer: p.Name, Child: w.cfg.Name, Local: local, Remote: remote,
			Detail: errHasToCall.Error(), Setting: "pool"})
	case home == nil:
		if w.packet != (Flow{}) {
			c.roomForCall()
		}
		if sa := c.startIKE(p, local, remote, []wish{w}); sa != nil {
			sa.tries = tries
			if w.packet != (Flow{}) {
				c.calls = append(c.calls, sa)
			}
		} else if w.cfg.Start { // no randomness
			c.plan(restart{c.now.Add(c.backoff(tries + 1)), p, w.cfg, local, remote, tries + 1})
		}
	case home.hs != nil:
		home.hs.want = append(home.hs.want, w)
	default:
		home.enqueue(&createTask{wish: w})
		c.settle(home)
	}
}

// plans says that a new child is queued or under way.
func (sa *ikeSA) plans(ch *Child) bool {
	is := func(t task) bool {
		x, ok := t.(*createTask)
		return ok && x.purpose == newChild && x.cfg == ch
	}
	return sa.hs != nil && slices.ContainsFunc(sa.hs.want, func(w wish) bool { return w.cfg == ch }) ||
		sa.req != nil && is(sa.req.task) || slices.ContainsFunc(sa.queue, func(q queued) bool { return is(q.task) })
}

// besides looks at a new child that a packet has asked for. If the peer has left
// the packet out, that is said, and not tried again while there is such a child.
func (c *Core) besides(sa *ikeSA, ch *child, packet Flow) {
	ch.packet = packet
	if packet == (Flow{}) || packet.within(ch.LocalTS, ch.RemoteTS) {
		return
	}
	ch.beside = true
	if from := packet.Local.First; len(sa.assigned) > 0 && !slices.Contains(sa.assigned, from) {
		// It was made before the gateway lent us an address (RFC 7296 section 3.15):
		// nothing is wrong, and this packet has no way.
		c.event(sa, Event{Kind: Address, Child: ch.Name,
			Detail: "the packet that asked for it has the address of before, " + from.String() + ": whoever sent it has to connect anew"})
		return
	}
	c.fail(sa, Event{Failure: NoSelectors, Child: ch.Name,
		Setting: differing([]TrafficSelector{packet.Local}, []TrafficSelector{packet.Remote}, ch.LocalTS, ch.RemoteTS),
		Ours:    "a packet of " + sidesText([]TrafficSelector{packet.Local}, []TrafficSelector{packet.Remote}),
		Theirs:  sidesText(ch.LocalTS, ch.RemoteTS), Detail: "the peer has left out what asked for the SA"})
	for _, o := range sa.children {
		if o != ch && o.cfg == ch.cfg && o.state == chUp && slices.Equal(o.LocalTS, ch.LocalTS) && slices.Equal(o.RemoteTS, ch.RemoteTS) {
			o.beside, ch.surplus = true, true
			c.deleteChild(sa, ch)
			return
		}
	}
}
