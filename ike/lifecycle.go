package ike

import (
	"bytes"
	"slices"
	"time"
)

const (
	keepalivePeriod = 20 * time.Second // RFC 3948 section 4
	defaultIKELife  = 4 * time.Hour
	defaultLife     = time.Hour
	defaultDPD      = 30 * time.Second

	// abandonTime is how long an SA that the peer should delete (it has
	// rekeyed it, or made it in a collision it lost) is left to it.
	abandonTime = 90 * time.Second
)

// establish is called when both sides have authenticated.
func (c *Core) establish(sa *ikeSA, low []byte, initialContact bool) {
	if sa.counted.IsValid() {
		c.guard.praise(sa.counted, c.now)
	}
	c.guard.stalled.erase(single(sa.remote.Addr()))
	c.leaveHandshake(sa)
	sa.state, sa.low, sa.up, sa.expireAt = stUp, low, c.now, time.Time{}
	sa.rekeyAt = c.now.Add(c.jitter(or(sa.peer.Lifetime, defaultIKELife)))
	c.stats.Up++
	c.enroll(sa)
	c.keepFew(sa, nil)
	c.event(sa, Event{Kind: IKEUp, Suite: sa.suite.String(), Detail: sa.transcriptText()})
	c.watchProof(sa)
	if initialContact {
		c.dropOlder(sa)
	}
	c.onePerPeer(sa)
	if t, ok := sa.probe().(*mappingTask); ok && sa.state == stUp {
		sa.enqueue(t) // learn the NAT's mapping, to know another one by it
	}
}

func (c *Core) leaveHandshake(sa *ikeSA) {
	if sa.hs == nil {
		return
	}
	if sa.hs.eap != nil {
		sa.hs.eap.close(c, sa)
	}
	c.guard.leave(sa)
	if c.inits[sa.initFrom] == sa {
		delete(c.inits, sa.initFrom)
	}
	sa.hs = nil
}

// holder is who stands at the other end of an IKE SA.
type holder struct {
	peer *Peer
	id   Identity
}

func (sa *ikeSA) holder() holder { return holder{sa.peer, sa.remoteID.folded()} }

// enroll puts an IKE SA among those of its peer; forget takes it out.
func (c *Core) enroll(sa *ikeSA) {
	h := sa.holder()
	c.held[h] = append(c.held[h], sa)
}

func (c *Core) resign(sa *ikeSA) {
	h := sa.holder()
	if i := slices.Index(c.held[h], sa); i >= 0 {
		c.held[h] = slices.Delete(c.held[h], i, i+1)
	}
	if len(c.held[h]) == 0 {
		delete(c.held, h)
	}
}

// twins gives the other IKE SAs with the same peer, oldest first.
func (c *Core) twins(sa *ikeSA) []*ikeSA {
	var out []*ikeSA
	for _, o := range c.held[sa.holder()] {
		if o != sa && o.state == stUp && o.localID.same(sa.localID) {
			out = append(out, o)
		}
	}
	return out
}

// heir is the child that takes over from one that is gone and has not been
// rekeyed: another of the same name, if there is one.
func (c *Core) heir(sa *ikeSA, gone *child) (best *child) {
	if sa.peer == nil {
		return nil
	}
	for _, home := range append([]*ikeSA{sa}, c.twins(sa)...) {
		for _, ch := range home.children {
			if ch == gone || ch.cfg != gone.cfg || !ch.using {
				continue
			}
			if best == nil || best.state != chUp && ch.state == chUp || best.state == ch.state && best.ID < ch.ID {
				best = ch
			}
		}
	}
	return best
}

// awaitsHeir says that another child of the same name is being made with the same
// peer.
func (c *Core) awaitsHeir(sa *ikeSA, gone *child) bool {
	for _, o := range c.index.at[spot{sa.peer, sa.remote.Addr()}] {
		if o.state <= stUp && o.plans(gone.cfg) {
			return true
		}
	}
	return false
}

// leave removes a child that has not been rekeyed. Where it has an heir, or is
// about to have one, as when both sides have called at once, it still receives
// what is under way.
func (c *Core) leave(sa *ikeSA, ch *child, failed bool) {
	best, linger := c.heir(sa, ch), time.Duration(0)
	if !failed && (best != nil || c.awaitsHeir(sa, ch)) {
		linger = c.cfg.Linger
	}
	c.dropChild(ch, failed, linger)
	if best != nil && ch.using {
		c.act(Action{Kind: UseSA, Child: best.ChildSA})
	}
}

// dropOlder is INITIAL_CONTACT, RFC 7296 section 2.4: what the peer had with
// us before is gone. What was agreed since it began this IKE SA is not meant.
func (c *Core) dropOlder(sa *ikeSA) {
	for _, o := range c.twins(sa) {
		if o.up.Before(sa.created) {
			c.clearQueue(o)
			c.event(o, Event{Kind: IKEDown, Detail: "the peer has started anew"})
			c.destroyQuietly(o)
		}
	}
}

// onePerPeer settles what happens when both sides call each other at once:
// two IKE SAs. As in a rekey (RFC 7296 section 2.8.2), the one with the
// lowest nonce is deleted by the side that began it.
func (c *Core) onePerPeer(sa *ikeSA) {
	for _, o := range c.twins(sa) {
		if o.began == sa.began {
			continue
		}
		lose, keep := sa, o
		if bytes.Compare(o.low, sa.low) < 0 {
			lose, keep = o, sa
		}
		if !lose.began {
			continue // the peer's to delete
		}
		for _, ch := range lose.children {
			if !keep.hasChild(ch.cfg) {
				keep.enqueue(&createTask{wish: wish{ch.cfg, ch.packet}})
			}
		}
		for _, q := range lose.queue {
			if t, ok := q.task.(*createTask); ok && t.purpose == newChild {
				keep.enqueue(t)
			}
		}
		lose.surplus = true
		c.deleteIKE(lose)
		if keep != sa {
			c.settle(keep)
		}
		if lose != sa {
			c.settle(lose)
		}
	}
}

func (sa *ikeSA) hasChild(cfg *Child) bool {
	return slices.ContainsFunc(sa.children, func(ch *child) bool { return ch.cfg == cfg && ch.state != chDeleting })
}

// inContact says whether an IKE SA with this peer is up.
func (c *Core) inContact(sa *ikeSA) bool {
	for o := range c.index.ofPeer[sa.peer] {
		if o != sa && (o.state == stUp || o.state == stReplaced) &&
			(o.remote.Addr() == sa.remote.Addr() || sa.peer.Endpoint.IsValid()) {
			return true
		}
	}
	return false
}

// follow takes the peer's address from an authentic message of a handshake,
// which may have moved to the NAT port (RFC 7296 section 2.23).
func (c *Core) follow(sa *ikeSA, d Datagram) {
	sa.local, sa.remote = d.Local, d.Remote
}

// destroy ends an IKE SA and all its children. failed says that the peer has
// not agreed.
func (c *Core) destroy(sa *ikeSA, failed bool) {
	if sa.state == stDead {
		return
	}
	wasUp := !sa.up.IsZero()
	var lost []*Child
	children := sa.children
	sa.children = nil
	for _, ch := range children {
		c.leave(sa, ch, failed)
		if ch.cfg.Start && !sa.surplus {
			lost = append(lost, ch.cfg)
		}
	}
	if sa.hs != nil {
		for _, w := range sa.hs.want {
			lost = append(lost, w.cfg)
		}
	}
	plans := sa.queue
	if sa.req != nil {
		plans = append(plans, queued{task: sa.req.task})
	}
	for _, q := range plans {
		if t, ok := q.task.(*createTask); ok && t.purpose == newChild && !sa.surplus {
			lost = append(lost, t.cfg)
		}
	}
	if wasUp && sa.next == nil && !sa.surplus {
		c.event(sa, Event{Kind: IKEDown, Detail: sa.ending})
	}
	c.forget(sa)
	if sa.peer != nil && sa.next == nil {
		c.restartLater(sa, lost, wasUp)
	}
}

// destroyQuietly ends an IKE SA without an attempt to make it anew.
func (c *Core) destroyQuietly(sa *ikeSA) {
	sa.surplus = true
	c.destroy(sa, true)
}

// forget takes an IKE SA without children out of all tables and wipes it.
func (c *Core) forget(sa *ikeSA) {
	if sa.hs != nil {
		if sa.hs.child != nil {
			c.release(sa.hs.child.spi)
		}
		sa.hs.wipe()
		if sa.counted.IsValid() && sa.hears && sa.job == nil { // else it waits for us
			c.guard.blame(sa.counted, c.now)
		}
	}
	c.dropRequest(sa)
	c.dropPending(sa)
	c.clearQueue(sa)
	c.leaveHandshake(sa)
	c.dropJob(sa)
	c.ghosts.add(sa, c.now)
	if sa.next == nil {
		c.leases.release(sa.lease, sa.id)
	}
	delete(c.sas, sa.mine())
	c.resign(sa)
	sa.state = stDead
	sa.keys.wipe()
	sa.in.wipe()
	sa.out.wipe()
	c.index.place(sa)
	if sa.index >= 0 {
		c.settle(sa)
	}
}

// dropRequest forgets the request under way and the SPIs it reserved. What
// was asked of an IKE SA that has been rekeyed is asked again of the new one.
func (c *Core) dropRequest(sa *ikeSA) {
	if sa.req == nil {
		return
	}
	again := sa.req.task
	switch t := again.(type) {
	case *createTask:
		t.abandon(c)
		if t.purpose == rekeyIKE {
			again = nil
		}
	case *deleteTask:
		if t.ch == nil {
			again = nil
		}
	case *moveTask, *routeTask:
	default:
		again = nil
	}
	sa.req = nil
	home := sa
	for home.next != nil {
		home = home.next
	}
	if again != nil && home.state == stUp && home != sa {
		home.enqueue(again)
		c.settle(home)
	}
}

// clearQueue forgets what was planned.
func (c *Core) clearQueue(sa *ikeSA) {
	for _, q := range sa.queue {
		if t, ok := q.task.(*createTask); ok {
			t.abandon(c)
		}
	}
	sa.queue = nil
}

// deadline is when tickSA is due.
func (c *Core) deadline(sa *ikeSA) time.Time {
	var t time.Time
	if sa.req != nil {
		t = sooner(t, sa.req.at)
	}
	t = sooner(t, sa.expireAt)
	t = sooner(t, sa.aliveAt)
	t = sooner(t, sa.quietAt())
	if sa.pending != nil {
		t = sooner(t, sa.pending.until)
	}
	if sa.state == stUp || sa.state == stReplaced {
		if sa.req == nil {
			for _, q := range sa.queue {
				t = sooner(t, q.at)
			}
			if at, ok := c.dpdAt(sa); ok {
				t = sooner(t, at)
			}
		}
		if sa.state == stUp {
			t = sooner(sooner(t, sa.rekeyAt), sa.proofNext)
		}
		for _, ch := range sa.children {
			t = sooner(t, ch.due())
		}
	}
	if t.IsZero() { // nothing waits: the heap wants a time all the same
		t = c.now.Add(time.Hour)
	}
	return t
}

// queueDue says that something is about to be asked of the peer.
func (sa *ikeSA) queueDue(now time.Time) bool {
	return slices.ContainsFunc(sa.queue, func(q queued) bool { return !q.at.After(now) })
}

func (c *Core) dpdAt(sa *ikeSA) (time.Time, bool) {
	d := or(sa.peer.DPD, defaultDPD)
	return sa.heard.Add(d), d > 0 && sa.state == stUp
}

// tickSA does what is due for one IKE SA.
func (c *Core) tickSA(sa *ikeSA) {
	due := func(t time.Time) bool { return !t.IsZero() && !t.After(c.now) }
	if due(sa.expireAt) {
		c.expired(sa)
		return
	}
	if due(sa.quietAt()) {
		c.quiet(sa)
	}
	if sa.req != nil && due(sa.req.at) && !c.retransmit(sa) {
		c.noAnswer(sa)
		return
	}
	if due(sa.aliveAt) {
		c.out.Send = append(c.out.Send, Datagram{Local: sa.local, Remote: sa.remote, Data: []byte{0xff}, Keepalive: true})
		sa.aliveAt = c.now.Add(keepalivePeriod)
	}
	if sa.pending != nil && due(sa.pending.until) {
		c.dropPending(sa)
	}
	if sa.state != stUp {
		return
	}
	if due(sa.proofNext) && c.proofDue(sa) {
		return
	}
	if due(sa.rekeyAt) {
		sa.rekeyAt = time.Time{}
		sa.enqueue(&createTask{purpose: rekeyIKE})
	}
	for _, ch := range slices.Clone(sa.children) {
		c.tickChild(sa, ch)
	}
	// What is queued for later does not speak for the peer meanwhile.
	if at, ok := c.dpdAt(sa); ok && sa.req == nil && !sa.queueDue(c.now) && due(at) {
		sa.enqueue(sa.probe())
	}
}

// expired: an IKE SA has stood in its state for too long.
func (c *Core) expired(sa *ikeSA) {
	switch sa.state {
	case stInitSent:
		if sa.hs.doom.Failure == NoFailure {
			sa.hs.doom = c.unanswered(sa)
		}
		c.fail(sa, sa.hs.doom)
	case stHalfOpen:
		if sa.initiator {
			c.fail(sa, c.unanswered(sa))
		} else {
			ev := Event{Failure: NoAnswer, Detail: c.stalled(sa), Peer: c.onlyCaller(sa)}
			if sa.hs.eap != nil && sa.job == nil {
				ev = sa.hs.eap.silence()
			}
			c.fail(sa, ev)
		}
	}
	c.destroy(sa, true)
}

// unanswered is the failure of a call, or of another request, that has had no answer.
func (c *Core) unanswered(sa *ikeSA) Event {
	ev := Event{Failure: NoAnswer}
	switch {
	case sa.req == nil:
	case sa.hs != nil:
		ev.Detail = c.silence(sa)
	default:
		ev.Detail = exchangeName(sa.req.exchange) + " was not answered"
	}
	return ev
}

// noAnswer: all retransmissions of a request have gone unanswered.
func (c *Core) noAnswer(sa *ikeSA) {
	ev := c.unanswered(sa)
	if sa.state == stInitSent && sa.hs.doom.Failure != NoFailure {
		ev = sa.hs.doom
	}
	if sa.state != stDeleting && sa.state != stReplaced {
		c.fail(sa, ev)
	}
	c.destroy(sa, true)
}
