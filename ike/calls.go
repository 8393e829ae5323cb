package ike

import "slices"

// maxCalls is how many calls for packets may be without any answer. In transport
// mode each address that a program of this host sends to is a peer to be called: one
// that tries all of a network would have the Core remember a minute of calls, and
// leave no place for whoever calls here.
const maxCalls = 1024

// calls are IKE SAs that we have begun for packets, oldest first; among them are some
// that have been answered, or are over.
type calls []*ikeSA

// roomForCall ends the call that has been without an answer for longest, if there are too
// many: who is there answers in less time than so many others take to begin.
func (c *Core) roomForCall() {
	if len(c.calls) < maxCalls {
		return
	}
	waits := func(sa *ikeSA) bool { return sa.state == stInitSent }
	c.calls = slices.DeleteFunc(c.calls, func(sa *ikeSA) bool { return !waits(sa) })
	if len(c.calls) < maxCalls {
		return
	}
	old := c.calls[0]
	c.calls = slices.Delete(c.calls, 0, 1)
	c.fail(old, Event{Failure: TooMany, Detail: "no answer yet, and others are called for packets as well"})
	c.destroy(old, true)
}
