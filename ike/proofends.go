package ike

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// This file ends what a certificate has proved when the certificate ends, however
// often the IKE SA has been rekeyed since. People hear of it before. The side that
// has called authenticates anew in good time, with what both sides have to show by
// then, and the new IKE SA takes over before the old one ends.
//
//	up ---- a day before: event ---- an hour: event ---- renewAhead: a new IKE SA ---- end: Delete
//
// The same is done for a peer that says how long our own proof is good for
// (AUTH_LIFETIME, RFC 4478); there the end is the peer's to make.

// warnAhead is how long before the end people are told.
var warnAhead = []time.Duration{24 * time.Hour, time.Hour}

const (
	// renewAhead is how long before the end the peer is called anew, or a tenth
	// of the time that there is, and renewEach how often that is tried.
	renewAhead = 10 * time.Minute
	renewEach  = time.Minute

	// authAhead is the least of that where the peer says how long it waits, or
	// half of what it gives, and minAuthLife the least that is heeded: no peer has
	// us call it again and again.
	authAhead   = 5 * time.Second
	minAuthLife = 4 * time.Second
)

// watchProof is called when an IKE SA comes up.
func (c *Core) watchProof(sa *ikeSA) {
	if sa.state != stUp {
		return
	}
	if !sa.proofEnds.IsZero() && sa.proofEnds.Sub(c.now) < warnAhead[0] {
		c.warnProof(sa)
	}
	c.planProof(sa)
}

// planProof finds what is next.
func (c *Core) planProof(sa *ikeSA) {
	sa.proofNext = sooner(sa.proofEnds, sa.authEnds)
	for _, d := range warnAhead {
		if at := sa.proofEnds.Add(-d); !sa.proofEnds.IsZero() && at.After(c.now) {
			sa.proofNext = sooner(sa.proofNext, at)
		}
	}
	for _, x := range sa.renewals() {
		at := x.end.Add(-x.ahead)
		if !at.After(c.now) {
			at = c.now.Add(x.each)
		}
		if at.Before(x.end) {
			sa.proofNext = sooner(sa.proofNext, at)
		}
	}
}

// renewals is when, and how often, the peer is to be called anew before an end.
func (sa *ikeSA) renewals() (list []renewal) {
	if !sa.began {
		return nil // whoever has called calls
	}
	if ahead := min(renewAhead, sa.proofEnds.Sub(sa.up)/10); !sa.proofEnds.IsZero() && ahead >= renewEach/2 { // else it has just shown all that it has
		list = append(list, renewal{sa.proofEnds, ahead, renewEach})
	}
	if !sa.authEnds.IsZero() {
		ahead := min(renewAhead, max(sa.authLife/10, min(sa.authLife/2, authAhead)))
		list = append(list, renewal{sa.authEnds, ahead, min(renewEach, ahead/2)})
	}
	return list
}

type renewal struct {
	end         time.Time
	ahead, each time.Duration
}

func (c *Core) warnProof(sa *ikeSA) {
	text := "the certificate that proves who the peer is ends at %s, or the list of revocations that speaks for it: by then the peer has to show another"
	if sa.began {
		text += "; it is called anew before"
	}
	c.event(sa, Event{Kind: Expires, Detail: fmt.Sprintf(text, sa.proofEnds.UTC().Format(time.DateTime+" MST")), Setting: "ca"})
}

// proofDue does what is due about the end of what has proved the peer; true: the
// IKE SA has ended.
func (c *Core) proofDue(sa *ikeSA) (ended bool) {
	left := sa.proofEnds.Sub(c.now)
	if !sa.proofEnds.IsZero() && left <= 0 {
		c.farewell(sa, Event{Failure: BadCertificate, Setting: "ca",
			Detail: "the certificate by which the peer has proved who it is has ended, or the list of revocations that spoke for it, and it has shown no other: the IKE SA ends"})
		return true
	}
	if !sa.authEnds.IsZero() && !sa.authEnds.After(c.now) {
		sa.authEnds = time.Time{} // to end it is up to the peer
	}
	if slices.ContainsFunc(sa.renewals(), func(x renewal) bool { return !x.end.Add(-x.ahead).After(c.now) }) {
		c.renew(sa)
	} else if !sa.proofEnds.IsZero() && left <= warnAhead[0] {
		c.warnProof(sa)
	}
	c.planProof(sa)
	return false
}

// hearAuthLifetime reads within how long the peer, which we have called, wants to be
// shown anew who we are. Rekeys show nothing (RFC 4478 section 2): we call again.
func (sa *ikeSA) hearAuthLifetime(ns notifies, now time.Time) bool {
	n, ok := ns.get(nAuthLifetime)
	if !ok || !sa.began || len(n.data) != 4 {
		return false
	}
	seconds := binary.BigEndian.Uint32(n.data)
	if seconds == 0 {
		return false
	}
	sa.authLife = max(time.Duration(seconds)*time.Second, minAuthLife)
	sa.authEnds = now.Add(sa.authLife)
	return true
}

// renew calls the peer for an IKE SA with the children of one whose proof is about
// to end.
func (c *Core) renew(old *ikeSA) {
	var want []wish
	for _, ch := range old.children {
		if ch.state == chUp && ch.next == nil && !slices.ContainsFunc(want, func(w wish) bool { return w.cfg == ch.cfg && w.packet == ch.packet }) {
			want = append(want, wish{ch.cfg, ch.packet})
		}
	}
	for _, w := range old.plannedChildren() { // that the peer has refused so far
		if !slices.ContainsFunc(want, func(x wish) bool { return x == w }) {
			want = append(want, w)
		}
	}
	if len(want) == 0 || old.renewal != nil && old.renewal.state != stDead {
		return // what needs it calls by itself, or it is under way
	}
	fresh := c.startIKE(old.peer, netip.AddrPortFrom(old.local.Addr(), c.cfg.Port), netip.AddrPortFrom(old.remote.Addr(), or(old.callee.Port(), 500)), want)
	if fresh != nil {
		old.renewal, fresh.renews = fresh, old
	}
}

// renewed ends the IKE SA that this one replaces, once this one has all its
// children.
func (c *Core) renewed(sa *ikeSA) {
	old := sa.renews
	if old == nil {
		return
	}
	for old.next != nil {
		old = old.next
	}
	if slices.ContainsFunc(old.children, func(ch *child) bool { return ch.state == chUp && !sa.hasChild(ch.cfg) }) {
		return
	}
	sa.renews = nil
	if old.state == stUp && old != sa {
		old.surplus = true
		c.deleteIKE(old)
		c.settle(old)
	}
}

// ownProof is when a certificate of our own ends, and when people are told next.
type ownProof struct {
	peer     *Peer
	at, ends time.Time
}

// watchOwn looks at the certificates that this side shows, of all peers. Nothing
// ends with them here: it is for the peers to say.
func (c *Core) watchOwn() {
	told := map[*Peer]time.Time{}
	for _, o := range c.own {
		told[o.peer] = o.at
	}
	c.own = nil
	for _, p := range c.cfg.Peers {
		o := ownProof{peer: p, at: c.now}
		for _, x := range p.Certificates {
			o.ends = sooner(o.ends, x.NotAfter)
		}
		if o.ends.IsZero() {
			continue
		}
		if at, ok := told[p]; ok {
			o.at = at
		}
		if warn := o.ends.Add(-warnAhead[0]); o.at.Before(warn) {
			o.at = warn
		}
		c.own = append(c.own, o)
	}
	c.planOwn()
}

func (c *Core) planOwn() {
	c.ownDue = time.Time{}
	for _, o := range c.own {
		c.ownDue = sooner(c.ownDue, o.at)
	}
}

// tellOwn tells of certificates of our own that are about to end, or have ended.
func (c *Core) tellOwn() {
	if c.ownDue.IsZero() || c.ownDue.After(c.now) {
		return
	}
	for i := range c.own {
		o := &c.own[i]
		if o.at.After(c.now) {
			continue
		}
		text := "our own certificate, or the CA's that goes with it, ends at %s: put another in its place and reload"
		if !o.ends.After(c.now) {
			text = "our own certificate, or the CA's that goes with it, has ended at %s, and peers refuse it: put another in its place and reload"
		}
		c.report(Event{Time: c.now, Kind: Expires, Peer: o.peer.Name, Detail: fmt.Sprintf(text, o.ends.UTC().Format(time.DateTime+" MST")), Setting: "certificate"})
		next := c.now.Add(warnAhead[0]) // of one that has ended, each day
		for _, at := range []time.Time{o.ends.Add(-warnAhead[1]), o.ends} {
			if at.After(c.now) {
				next = sooner(next, at)
			}
		}
		o.at = next
	}
	c.planOwn()
}
