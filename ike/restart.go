package ike

import (
	"net/netip"
	"slices"
	"time"
)

// restart is a child with Start set that is to be made again.
type restart struct {
	at            time.Time
	peer          *Peer
	child         *Child
	local, remote netip.AddrPort
	tries         int
}

const maxRestarts = 4096

// restartLater plans new attempts for children that must be there: soon the
// first time, then at growing distances up to a minute.
func (c *Core) restartLater(sa *ikeSA, lost []*Child, wasUp bool) {
	from, to := sa.caller, sa.callee
	if !sa.began {
		from = netip.AddrPortFrom(sa.local.Addr(), c.cfg.Port)
		to = netip.AddrPortFrom(sa.peer.Endpoint.Addr(), or(sa.peer.Endpoint.Port(), 500))
	}
	for _, ch := range lost {
		if !sa.always(ch) || len(c.again) >= maxRestarts ||
			slices.ContainsFunc(c.again, func(r restart) bool { return r.peer == sa.peer && r.child == ch && r.remote == to }) {
			continue
		}
		tries := sa.tries + 1
		if wasUp && c.now.Sub(sa.up) > time.Minute {
			tries = 1 // else what ends it again and again would be asked for too often
		}
		c.plan(restart{c.now.Add(c.backoff(tries)), sa.peer, ch, from, to, tries})
	}
}

// plan enters an attempt.
func (c *Core) plan(r restart) {
	c.again = append(c.again, r)
	c.due = sooner(c.due, r.at)
}

func (c *Core) restartDue() {
	if c.due.IsZero() || c.due.After(c.now) {
		return
	}
	list := c.again
	c.again, c.due = nil, time.Time{}
	for _, r := range list {
		if r.at.After(c.now) {
			c.plan(r)
			continue
		}
		// Either side may have another address by now.
		if r.peer.Endpoint.IsValid() && len(r.peer.From) == 0 {
			r.remote = netip.AddrPortFrom(r.peer.Endpoint.Addr(), or(r.peer.Endpoint.Port(), 500))
		}
		if a := c.source(r.peer, r.remote.Addr()); a.IsValid() {
			r.local = netip.AddrPortFrom(a, c.cfg.Port)
		}
		if !r.local.IsValid() {
			r.at = c.now.Add(c.jitter(noRouteWait))
			c.plan(r)
			continue
		}
		c.want(r.peer, wish{cfg: r.child}, r.local, r.remote, r.tries)
	}
}
