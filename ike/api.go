package ike

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Call asks for a child.
type Call struct {
	Peer, Child string
	// Local and Remote say between which addresses, for a peer that has
	// none of its own or a range. A zero port means 500.
	Local, Remote netip.AddrPort
	// Packet is what asks for it; the zero Flow: nobody in particular.
	Packet Flow
}

// Initiate makes a child unless it is there or on its way. An IKE SA that is
// up is used; else one is begun. The error is about the call itself; what
// becomes of the exchange are events.
func (c *Core) Initiate(now time.Time, call Call) (Output, error) {
	c.begin(now)
	p := c.peers.names[call.Peer]
	if p == nil {
		return c.end(), fmt.Errorf("there is no ike block %q", call.Peer)
	}
	ch := p.child(call.Child)
	if ch == nil {
		return c.end(), fmt.Errorf("ike block %q has no ipsec block %q", call.Peer, call.Child)
	}
	if p.EAP {
		return c.end(), fmt.Errorf("ike block %q waits to be called: who proves itself by EAP calls", call.Peer)
	}
	local, remote := call.Local, call.Remote
	if !remote.IsValid() {
		remote = p.Endpoint
	}
	if !local.IsValid() {
		local = netip.AddrPortFrom(c.source(p, remote.Addr()), 0)
	}
	if remote.IsValid() && !local.Addr().IsValid() {
		return c.end(), fmt.Errorf("ike block %q cannot call %s: this host has no route to it", call.Peer, remote.Addr())
	}
	if !remote.IsValid() {
		return c.end(), fmt.Errorf("ike block %q does not say where to call", call.Peer)
	}
	remote = netip.AddrPortFrom(remote.Addr().Unmap().WithZone(""), or(remote.Port(), 500))
	local = netip.AddrPortFrom(local.Addr().Unmap().WithZone(""), or(local.Port(), c.cfg.Port))
	if remote.Addr().Is6() && remote.Addr().IsLinkLocalUnicast() {
		return c.end(), fmt.Errorf("ike block %q cannot call %s: a link-local address does not say on which link; let a rule in front bypass what is for such addresses", call.Peer, remote.Addr())
	}
	if len(p.From) > 0 && !p.mayCallFrom(remote.Addr()) {
		return c.end(), fmt.Errorf("ike block %q is not for %s", call.Peer, remote.Addr())
	}
	if p.lends(ch) {
		lent := func(sa *ikeSA) bool { return !sa.surplus && sa.state == stUp && !sa.unlent(ch) }
		if !slices.ContainsFunc(c.index.at[spot{p, remote.Addr()}], lent) {
			return c.end(), fmt.Errorf("ike block %q has no IKE SA with %s to use: %w", call.Peer, remote.Addr(), errHasToCall)
		}
		c.want(p, wish{ch, call.Packet}, local, remote, 0)
		return c.end(), nil
	}
	probe := &ikeSA{peer: p, local: local, remote: remote, shown: remote.Addr()}
	if len(probe.localTS(ch)) == 0 || len(probe.remoteTS(ch)) == 0 {
		return c.end(), fmt.Errorf("ipsec block %q is not for what goes from %s to %s", ch.Name, local.Addr(), remote.Addr())
	}
	c.want(p, wish{ch, call.Packet}, local, remote, 0)
	return c.end(), nil
}

// Start makes every child that has Start set and whose peer has an address.
func (c *Core) Start(now time.Time) Output {
	c.begin(now)
	c.startAll()
	c.watchOwn()
	return c.end()
}

func (c *Core) startAll() {
	for _, p := range c.cfg.Peers {
		for _, ch := range p.Children {
			if !ch.Start || !p.Endpoint.IsValid() {
				continue
			}
			remote := netip.AddrPortFrom(or(ch.Endpoint, p.Endpoint.Addr()), or(p.Endpoint.Port(), 500))
			if local := c.source(p, remote.Addr()); local.IsValid() {
				c.want(p, wish{cfg: ch}, netip.AddrPortFrom(local, c.cfg.Port), remote, 0)
			} else if !slices.ContainsFunc(c.again, func(r restart) bool { return r.peer == p && r.child == ch }) {
				// No way there yet: try again, as after a call that failed.
				c.report(Event{Time: c.now, Kind: Silent, Peer: p.Name, Child: ch.Name, Remote: remote,
					Detail: fmt.Sprintf("this host has no route to %s yet", remote.Addr())})
				c.plan(restart{c.now.Add(c.jitter(noRouteWait)), p, ch, netip.AddrPort{}, remote, 1})
			}
		}
	}
}

// noRouteWait is how long a host without a way to the peer waits before it
// looks again.
const noRouteWait = 4 * time.Second

// source is the address of ours to call a peer from; the zero Addr: not known.
func (c *Core) source(p *Peer, remote netip.Addr) netip.Addr {
	if p.Local.IsValid() || c.cfg.Source == nil {
		return p.Local
	}
	return c.cfg.Source(remote)
}

// each calls f for the IKE SAs of a peer, in the order in which they were
// made; an empty name means all peers.
func (c *Core) each(peer string, f func(*ikeSA)) {
	var list []*ikeSA
	if peer == "" {
		list = slices.AppendSeq(make([]*ikeSA, 0, len(c.sas)), maps.Values(c.sas))
	} else {
		for p, all := range c.index.ofPeer { // one that the policy has no more may have the same name
			if p.Name == peer {
				list = slices.AppendSeq(list, maps.Keys(all))
			}
		}
	}
	visit(list, f)
}

// visit calls f for those of a list that live, in the order in which they were
// made.
func visit(list []*ikeSA, f func(*ikeSA)) {
	slices.SortFunc(list, func(a, b *ikeSA) int { return cmp.Compare(a.id, b.id) })
	for _, sa := range list {
		if sa.state != stDead {
			f(sa)
		}
	}
}

// Terminate deletes the IKE SAs of a peer, or only its children of one name.
// They are not made anew unless asked for. An empty peer means all. Of many,
// later calls of Tick end the rest.
func (c *Core) Terminate(now time.Time, peer, child string) Output {
	c.begin(now)
	c.again = slices.DeleteFunc(c.again, func(r restart) bool {
		return (peer == "" || r.peer.Name == peer) && (child == "" || r.child.Name == child)
	})
	c.each(peer, func(sa *ikeSA) {
		sa.surplus = sa.surplus || child == ""
		c.partings = append(c.partings, parting{sa, child, peer != ""})
	})
	c.part()
	return c.end()
}

// parting is what is left to do of a Terminate. Tens of thousands are not ended
// in one step, in which the messages of all others would have to wait.
type parting struct {
	sa    *ikeSA
	child string // empty: all
	tell  bool   // somebody has asked for this very peer, and waits to hear of it
}

// partStep is how many end at once.
const partStep = 256

func (c *Core) part() {
	n := min(partStep, len(c.partings))
	list := c.partings[:n]
	if c.partings = c.partings[n:]; len(c.partings) == 0 {
		c.partings = nil
	}
	for _, p := range list {
		sa := p.sa
		if sa.next != nil { // rekeyed since
			c.partings = append(c.partings, parting{sa.next, p.child, p.tell})
		}
		switch {
		case sa.state == stDead:
			continue
		case p.child != "":
			sa.forgetPlans(p.child)
			for _, ch := range slices.Clone(sa.children) {
				if ch.Name == p.child {
					c.deleteChild(sa, ch)
				}
			}
		default:
			if p.tell && sa.state == stUp {
				c.event(sa, Event{Kind: IKEDown, Detail: "terminated here"})
			}
			c.deleteIKE(sa)
		}
		c.settle(sa)
	}
}

// rekeyAtOnce and rekeyEach say how fast many are rekeyed that were asked for
// together: so many at once, then one after the other. More would lose each
// other's answers, and what is not answered is taken for dead.
const (
	rekeyAtOnce = 128
	rekeyEach   = time.Millisecond
)

// Rekey rekeys the IKE SAs of a peer, or its children of one name, one after the
// other if there are many.
func (c *Core) Rekey(now time.Time, peer, child string) Output {
	c.begin(now)
	n := 0
	later := func(due *time.Time) bool {
		n++
		at := c.now.Add(time.Duration(n-rekeyAtOnce) * rekeyEach)
		if n <= rekeyAtOnce || !due.IsZero() && due.Before(at) {
			return n > rekeyAtOnce
		}
		*due = at
		return true
	}
	c.each(peer, func(sa *ikeSA) {
		if sa.state != stUp {
			return
		}
		if child == "" && !later(&sa.rekeyAt) {
			sa.rekeyAt = time.Time{}
			sa.enqueue(&createTask{purpose: rekeyIKE})
		}
		for _, ch := range sa.children {
			if ch.Name == child && ch.state == chUp && !ch.rekeying && ch.next == nil && !later(&ch.rekeyAt) {
				c.rekeyChild(sa, ch)
			}
		}
		c.settle(sa)
	})
	return c.end()
}

// Seen tells that a packet has come out of the inbound SA with this SPI: the
// peer has the pair, so we may send by it (RFC 7296 section 2.8).
func (c *Core) Seen(now time.Time, spi uint32) Output {
	c.begin(now)
	if ch := c.spis[spi]; ch != nil && ch.state == chUp {
		ch.seen = true
		c.use(ch)
	}
	return c.end()
}

// Usage is what a child has carried; its traffic shows that the peer lives.
type Usage struct {
	ID             uint64
	Bytes, Packets uint64    // both directions, since it was installed
	LastIn         time.Time // of the last packet that arrived; zero: none
}

// Report brings the counters of children up to date. Those over their soft
// limits are rekeyed.
func (c *Core) Report(now time.Time, list []Usage) Output {
	c.begin(now)
	for _, u := range list {
		ch := c.index.ids[u.ID]
		if ch == nil || ch.home == nil {
			continue
		}
		sa := ch.home
		if u.LastIn.After(sa.heard) && !u.LastIn.After(c.now) {
			sa.heard = u.LastIn // its timer finds out
		}
		over := ch.cfg.Bytes > 0 && u.Bytes >= ch.cfg.Bytes || ch.cfg.Packets > 0 && u.Packets >= ch.cfg.Packets
		if over && ch.state == chUp && !ch.rekeying && ch.next == nil {
			c.rekeyChild(sa, ch)
			c.settle(sa)
		}
	}
	return c.end()
}

// AddressChange tells that one of our addresses has given way to another.
// IKE SAs with MOBIKE that we began move; the others find out by themselves.
func (c *Core) AddressChange(now time.Time, from, to netip.Addr) Output {
	c.begin(now)
	c.each("", func(sa *ikeSA) {
		if sa.local.Addr() == from {
			c.moveLocal(sa, to)
		}
	})
	return c.end()
}
