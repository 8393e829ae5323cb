package ike

import (
	"slices"
	"time"
)

// This file keeps the promise of Child.Start, which is `initiate = "start"`: the child
// is there at once and always. Whatever keeps it away (a refusal, the end of its hard
// lifetime, no address, the end of its IKE SA), it is asked for again, after a while
// that grows.
//
//	IKE SA up:   CREATE_CHILD_SA, by the queue of the IKE SA
//	no IKE SA:   a call, by Core.again
//	no address:  the IKE SA ends, for only IKE_AUTH asks for one; then a call

// always says that this side asks for a child again when it is not there. Which of the
// two sides has called does not matter, if this one knows where to call.
func (sa *ikeSA) always(cfg *Child) bool {
	return cfg != nil && cfg.Start && !sa.surplus && !sa.peer.lends(cfg) && (sa.began || sa.peer.Endpoint.IsValid())
}

// backoff is how long to wait after so many attempts in a row that came to nothing:
// two seconds, four, eight, up to a minute, less up to a tenth by chance.
func (c *Core) backoff(tries int) time.Duration {
	return c.jitter(min(time.Second<<min(tries, 6), time.Minute))
}

// askAgain plans another attempt over the same IKE SA at a child that must be there.
func (c *Core) askAgain(sa *ikeSA, w wish, tries int) {
	if sa.always(w.cfg) && !sa.plans(w.cfg) {
		sa.enqueueAt(&createTask{wish: w, tries: tries + 1}, c.now.Add(c.backoff(tries+1)))
	}
}

// refused is for a child that the peer refuses.
func (c *Core) refused(sa *ikeSA, w wish, tries int, ev Event) {
	if sa.state == stUp && sa.lacksAddress() {
		// Only IKE_AUTH asks for an address (RFC 7296 section 3.15), and
		// without one nothing can come of this IKE SA.
		sa.enqueue(&createTask{wish: w}) // whoever ends it makes it anew
		c.farewell(sa, ev)
		return
	}
	c.fail(sa, ev)
	c.askAgain(sa, w, tries)
}

// refusedInAuth is for the child of IKE_AUTH. more are others that were to be asked for
// after it; end says that the IKE SA ends in any case.
func (c *Core) refusedInAuth(sa *ikeSA, w wish, more []wish, ev Event, end bool) {
	if end || sa.lacksAddress() {
		for _, w := range more {
			sa.enqueue(&createTask{wish: w})
		}
	}
	if end {
		sa.enqueue(&createTask{wish: w})
		c.farewell(sa, ev)
		return
	}
	c.refused(sa, w, 0, ev)
}

// lacksAddress says that we have asked for an address, and have nothing.
func (sa *ikeSA) lacksAddress() bool {
	p := sa.peer
	return sa.began && (p.RequestIPv4 || p.RequestIPv6) && len(sa.assigned) == 0 && len(sa.children) == 0
}

// handOver asks for children over the IKE SAs of the peer's own call, against which
// ours has lost.
func (c *Core) handOver(sa *ikeSA, list []wish) {
	twins := c.twins(sa)
	if len(twins) == 0 {
		return
	}
	o := twins[0]
	for _, w := range list {
		if !o.hasChild(w.cfg) && !o.plans(w.cfg) {
			o.enqueue(&createTask{wish: w})
		}
	}
	c.settle(o)
}

// plannedChildren gives the new children that an IKE SA is to ask for.
func (sa *ikeSA) plannedChildren() (list []wish) {
	for _, q := range sa.queue {
		if t, ok := q.task.(*createTask); ok && t.purpose == newChild {
			list = append(list, t.wish)
		}
	}
	return list
}

// forgetPlans drops what is planned for children of one name.
func (sa *ikeSA) forgetPlans(child string) {
	sa.queue = slices.DeleteFunc(sa.queue, func(q queued) bool {
		t, ok := q.task.(*createTask)
		return ok && t.purpose == newChild && t.cfg.Name == child
	})
}
