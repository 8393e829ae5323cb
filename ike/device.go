package ike

import "time"

// This file tells a caller that calls again (a reauthentication) from a second device
// with the same identity. The first keeps its address; the second gets another one.
// What tells them is where they call from: the same address and the same port are one
// device, also behind a NAT, which maps each to a port of its own.
//
//	ann, laptop  198.51.100.7:4500   10.5.0.2
//	ann, phone   198.51.100.7:31044  10.5.0.3
//	ann, laptop  198.51.100.7:4500   10.5.0.2, and the laptop's IKE SA of before ends

// goodbye is how long an IKE SA whose lease another one of the same device has taken
// over may still be there: the device ends it itself when its children have moved.
const goodbye = 10 * time.Second

// sameDevice finds the IKE SA whose lease a new one of the same identity takes over.
// After INITIAL_CONTACT there is none: it is gone already.
func (c *Core) sameDevice(sa *ikeSA) (old *ikeSA) {
	for _, o := range c.held[sa.holder()] {
		if o != sa && o.state != stDead && len(o.lease.addrs()) > 0 && o.remote == sa.remote {
			old = o
		}
	}
	return old
}

// takenOver takes the lease from an IKE SA that another one has it from now on, so
// that no child is made with it any more, and ends it if its peer does not.
func (c *Core) takenOver(old *ikeSA) {
	old.lease = leaseKey{}
	old.enqueueAt(&partTask{}, c.now.Add(goodbye))
	c.settle(old)
}

// partTask ends an IKE SA with one Delete.
type partTask struct{}

func (t *partTask) build(c *Core, sa *ikeSA) (uint8, []payload, bool) {
	if sa.state == stUp {
		c.event(sa, Event{Kind: IKEDown, Detail: "the same device has called again, and has its address by another IKE SA", Setting: "pool"})
		sa.surplus = true
		c.partQuietly(sa)
	}
	return 0, nil, false
}

func (t *partTask) answer(c *Core, sa *ikeSA, m *opened, ns notifies) {}
