package ike

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"
)

// Update puts another list of peers in force. IKE SAs of peers that are the
// same live on, those of others are deleted; of a peer that is the same, the
// children live on that are. A peer that is Named and whose Endpoint alone is another
// (its name has another address now) is the same: calls go there from now on, also for
// the tunnels that we have called it for, whose IKE SA stays until another
// takes its place. On error nothing has changed. The peers belong to the
// Core from then on.
func (c *Core) Update(now time.Time, peers []*Peer) (Output, error) {
	if err := c.cfg.check(peers); err != nil {
		return Output{}, err
	}
	c.begin(now)
	next := make([]*Peer, 0, len(peers))
	for _, p := range peers {
		was := c.peers.names[p.Name]
		if was == nil || !samePeer(was, p) {
			next = append(next, p)
			continue
		}
		from := was.Endpoint
		was.Endpoint = p.Endpoint
		c.updateChildren(was, p.Children)
		if from.Addr() != p.Endpoint.Addr() {
			c.pursue(was, from.Addr())
		}
		next = append(next, was)
	}
	roster := newRoster(next)
	for _, p := range c.cfg.Peers {
		if !roster.has(p) {
			c.expel(p)
		}
	}
	c.cfg.Peers, c.peers = next, roster
	c.startAll()
	c.watchOwn()
	return c.end(), nil
}

// pursue calls a peer where its name leads now, for the tunnels that it has been
// called for where it led before. In transport mode packets say themselves which
// address they are for.
func (c *Core) pursue(p *Peer, from netip.Addr) {
	var list []wish
	c.eachOf(p, func(sa *ikeSA) {
		if sa.state != stUp || !sa.began || sa.surplus || sa.remote.Addr() != from {
			return
		}
		for _, ch := range sa.children {
			if ch.state == chUp && ch.cfg.Mode == Tunnel && !ch.cfg.Endpoint.IsValid() {
				list = append(list, wish{ch.cfg, ch.packet})
			}
		}
	})
	remote := netip.AddrPortFrom(p.Endpoint.Addr(), or(p.Endpoint.Port(), 500))
	local := c.source(p, remote.Addr())
	for _, w := range list {
		if remote.Addr().IsValid() && local.IsValid() {
			c.want(p, w, netip.AddrPortFrom(local, c.cfg.Port), remote, 0)
		}
	}
}

// supersede ends IKE SAs of ours with a peer at an address that its name no more
// leads to, once this one has all their tunnels.
func (c *Core) supersede(sa *ikeSA) {
	c.renewed(sa)
	at := sa.peer.Endpoint.Addr()
	if !sa.began || len(sa.peer.From) > 0 || sa.remote.Addr() != at {
		return
	}
	for _, o := range c.twins(sa) {
		if !o.began || o.remote.Addr() == at || slices.ContainsFunc(o.children, func(ch *child) bool {
			return ch.cfg.Mode == Tunnel && ch.state == chUp && !sa.hasChild(ch.cfg)
		}) {
			continue
		}
		o.surplus = true
		c.deleteIKE(o)
		c.settle(o)
	}
}

// samePeer says that nothing has changed but where a name leads, and the children.
func samePeer(a, b *Peer) bool {
	x, y := *a, *b
	if x.Named && y.Named {
		x.Endpoint, y.Endpoint = netip.AddrPort{}, netip.AddrPort{}
	}
	x.Children, y.Children = nil, nil
	x.known, y.known = nil, nil
	return a.Endpoint.IsValid() == b.Endpoint.IsValid() && reflect.DeepEqual(x, y)
}

// sameChild says that nothing has changed but when it is made.
func sameChild(a, b *Child) bool {
	x, y := *a, *b
	x.Start, y.Start = false, false
	return reflect.DeepEqual(x, y)
}

// updateChildren gives a peer other children. Those it has no more are deleted.
func (c *Core) updateChildren(p *Peer, list []*Child) {
	next := make([]*Child, 0, len(list))
	for _, ch := range list {
		was := p.child(ch.Name)
		if was != nil && sameChild(was, ch) {
			was.Start = ch.Start
			ch = was
		}
		next = append(next, ch)
	}
	gone := func(ch *Child) bool { return !slices.Contains(next, ch) }
	if !slices.ContainsFunc(p.Children, gone) {
		p.Children = next
		return
	}
	c.again = slices.DeleteFunc(c.again, func(r restart) bool { return r.peer == p && gone(r.child) })
	c.eachOf(p, func(sa *ikeSA) {
		if hs := sa.hs; hs != nil {
			hs.want = slices.DeleteFunc(hs.want, func(w wish) bool { return gone(w.cfg) })
			if hs.child != nil && gone(hs.child.cfg) {
				c.destroyQuietly(sa) // it has been asked for already
				return
			}
		}
		sa.queue = slices.DeleteFunc(sa.queue, func(q queued) bool {
			t, ok := q.task.(*createTask)
			return ok && t.purpose == newChild && gone(t.cfg)
		})
		if p := sa.pending; p != nil && p.n != nil && gone(p.n.cfg) {
			c.dropPending(sa)
		}
		if sa.req != nil {
			if t, ok := sa.req.task.(*createTask); ok && t.cfg != nil && gone(t.cfg) {
				c.deleteIKE(sa) // what is being made cannot be called off
			}
		}
		for _, ch := range slices.Clone(sa.children) {
			if gone(ch.cfg) {
				c.deleteChild(sa, ch)
			}
		}
	})
	p.Children = next
}

// expel ends all that a peer has: its traffic at once, its IKE SAs with a
// Delete.
func (c *Core) expel(p *Peer) {
	c.eachOf(p, func(sa *ikeSA) {
		sa.surplus = true
		children := sa.children
		sa.children = nil
		for _, ch := range children {
			c.childEvent(sa, ch, Event{Kind: ChildDown, Detail: "the policy has changed"})
			c.dropChild(ch, true, 0)
		}
		c.deleteIKE(sa)
	})
	// A handshake that ends has just planned another.
	if len(c.again) > 0 {
		c.again = slices.DeleteFunc(c.again, func(r restart) bool { return r.peer == p })
	}
	// Another policy may have another pool.
	c.leases.forget(p.Name)
}

// eachOf calls f for the IKE SAs of one peer and settles them.
func (c *Core) eachOf(p *Peer, f func(*ikeSA)) {
	visit(slices.AppendSeq([]*ikeSA(nil), maps.Keys(c.index.ofPeer[p])), func(sa *ikeSA) {
		f(sa)
		c.settle(sa)
	})
}

// RekeyChild rekeys one child: its SA has come to the end of its numbers, or of
// what the policy lets it carry.
func (c *Core) RekeyChild(now time.Time, id uint64) Output {
	return c.withChild(now, id, func(sa *ikeSA, ch *child) {
		if !ch.rekeying && ch.next == nil {
			c.rekeyChild(sa, ch)
		}
	})
}

// DeleteChild deletes one child: its SAs are of no use here.
func (c *Core) DeleteChild(now time.Time, id uint64) Output {
	return c.withChild(now, id, c.deleteChild)
}

// withChild calls f for a child that is up.
func (c *Core) withChild(now time.Time, id uint64, f func(*ikeSA, *child)) Output {
	c.begin(now)
	if ch := c.index.ids[id]; ch != nil && ch.state == chUp && slices.Contains(ch.home.children, ch) {
		f(ch.home, ch)
		c.settle(ch.home)
	}
	return c.end()
}

// Roamed tells that an authentic packet of a child, named by its inbound SPI,
// came to local from remote, where the peer was not before: the NAT in front of
// it has another mapping now (RFC 7296 section 2.23).
func (c *Core) Roamed(now time.Time, spi uint32, local, remote netip.AddrPort) Output {
	c.begin(now)
	if ch := c.spis[spi]; ch != nil {
		c.roam(ch.home, local, remote)
		c.settle(ch.home)
	}
	return c.end()
}

// roam follows a peer behind a NAT to where its last authentic packet came from.
// Only the NAT in front of the peer may do that: a peer whose own address is
// seen cannot be moved by whoever relays its packets. With MOBIKE another
// address is the peer's to tell (RFC 4555 section 3.8); another port of the same
// address is not.
func (c *Core) roam(sa *ikeSA, local, remote netip.AddrPort) {
	if !sa.natPeer || sa.state != stUp || sa.remote == remote || sa.local.Addr() != local.Addr() ||
		sa.mobike && sa.remote.Addr() != remote.Addr() || len(sa.peer.From) > 0 && !sa.peer.mayCallFrom(remote.Addr()) {
		return
	}
	sa.goTo(sa.local, remote)
	c.moved(sa)
}
