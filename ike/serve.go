package ike

import (
	"bytes"
	"encoding/binary"
	"slices"
)

func temporary() []payload { return []payload{note(nTemporaryFailure)} }

// serveCreate answers CREATE_CHILD_SA. When both sides are at it at once, RFC
// 7296 section 2.25 says who waits.
func (c *Core) serveCreate(sa *ikeSA, m *opened, ns notifies) []payload {
	if sa.state != stUp {
		return temporary()
	}
	var mine *createTask
	deleting := false
	if sa.req != nil {
		mine, _ = sa.req.task.(*createTask)
		_, deleting = sa.req.task.(*deleteTask)
	}
	if _, child := find(m.payloads, plTSi); !child {
		if deleting || mine != nil && mine.purpose != rekeyIKE || sa.rekeyIn.done() {
			return temporary()
		}
		return c.serveRekeyIKE(sa, m)
	}
	if mine != nil && mine.purpose == rekeyIKE || sa.checking() {
		return temporary()
	}
	in := &rekeyIn{}
	var old *child
	if n, ok := ns.get(nRekeySA); ok {
		if len(n.spi) == 4 {
			old = sa.byOutbound(binary.BigEndian.Uint32(n.spi))
		}
		switch {
		case old == nil && mine != nil:
			return temporary() // perhaps the child we are making: its answer was lost
		case old == nil:
			return []payload{notify{proto: n.proto, kind: nChildSANotFound, spi: n.spi}.payload()}
		case old.state != chUp || old.rekeyIn.done():
			return temporary()
		}
	}
	a, reply, ev := c.agreeChild(sa, m, ns, old)
	if a == nil {
		if ev.Failure != NoFailure {
			c.fail(sa, ev)
		}
		return reply
	}
	in.low = lowest(a.ni, a.nr)
	if old != nil {
		old.rekeyIn = in
	}
	return c.agreed(sa, a, in, reply)
}

// agreeChild negotiates a child in CREATE_CHILD_SA.
func (c *Core) agreeChild(sa *ikeSA, m *opened, ns notifies, old *child) (*agreement, []payload, Event) {
	malformed := func(err error) (*agreement, []payload, Event) {
		return nil, []payload{note(nInvalidSyntax)}, Event{Failure: Malformed, Detail: err.Error()}
	}
	ni, err := parseNonce(m.payloads)
	if err != nil {
		return malformed(err)
	}
	a := &agreement{old: old, ni: bytes.Clone(ni)}
	neg := negotiation{}
	var public []byte
	if kep, ok := find(m.payloads, plKE); ok {
		if neg.ke, public, err = parseKE(kep.body); err != nil {
			return malformed(err)
		}
	}
	n, reply, ev := c.serveChild(sa, m.payloads, ns, neg, old)
	if n == nil {
		return nil, reply, ev
	}
	a.n, a.suite = n, n.suite
	if a.nr, err = c.random(nonceLen); err != nil {
		c.release(n.spiIn)
		return nil, temporary(), Event{Failure: BadRandomness}
	}
	reply = append(reply, payload{kind: plNonce, body: a.nr})
	if n.suite.ke != KENone {
		ours, shared, err := c.kex.respond(n.suite.ke, public)
		if err != nil {
			c.release(n.spiIn)
			return malformed(err)
		}
		a.shared = shared
		reply = append(reply, kePayload(n.suite.ke, ours))
	}
	return a, reply, Event{}
}

// agreed finishes an agreement as responder, or asks for IKE_FOLLOWUP_KE.
func (c *Core) agreed(sa *ikeSA, a *agreement, in *rekeyIn, reply []payload) []payload {
	c.dropPending(sa)
	if _, _, more := a.suite.nextAddKE(0); more {
		link, err := c.random(16)
		if err != nil {
			return temporary()
		}
		a.link = link
		sa.pending = &pendingCreate{*a, in, c.now.Add(abandonTime)}
		return append(reply, note(nAdditionalKE, link...))
	}
	c.finishServe(sa, a, in)
	return reply
}

func (c *Core) dropPending(sa *ikeSA) {
	if p := sa.pending; p != nil {
		if p.n != nil {
			c.release(p.n.spiIn)
		}
		p.wipe()
		sa.pending = nil
	}
}

// finishServe makes the SA as responder of the exchange. A rekeyed child is
// not used for sending before the peer shows that it has it (RFC 7296 section
// 2.8): the old one is deleted, or a packet arrives.
func (c *Core) finishServe(sa *ikeSA, a *agreement, in *rekeyIn) {
	defer a.wipe()
	if a.n == nil {
		if in.sa = c.rekeyedIKE(sa, a, false); in.sa == nil {
			return
		}
		if sa.req != nil {
			if t, ok := sa.req.task.(*createTask); ok && t.purpose == rekeyIKE {
				in.sa.from = sa // a collision: settled when our own is answered
				return
			}
		}
		c.adopt(sa, in.sa)
		sa.expireAt = c.now.Add(abandonTime)
		return
	}
	toR, toI := childKeys(sa.suite.prf, sa.keys.d, &a.suite, a.shared, a.ni, a.nr, a.more...)
	ch := c.addChild(sa, a.n, toR, toI, a.old == nil, a.old, origin{false, lowest(a.ni, a.nr)})
	in.child = ch
	if a.old != nil {
		a.old.expireAt = c.now.Add(abandonTime)
	}
	c.oneOfEach(sa, ch)
}

// serveFollowup answers IKE_FOLLOWUP_KE, RFC 9370 section 2.2.4.
func (c *Core) serveFollowup(sa *ikeSA, m *opened, ns notifies) []payload {
	n, _ := ns.get(nAdditionalKE)
	p := sa.pending
	if sa.state != stUp {
		return temporary()
	}
	if p == nil || !bytes.Equal(n.data, p.link) || p.old != nil && !slices.Contains(sa.children, p.old) {
		return []payload{note(nStateNotFound)}
	}
	slot, want, _ := p.suite.nextAddKE(p.slot)
	kep, _ := find(m.payloads, plKE)
	method, public, err := parseKE(kep.body)
	if err != nil || method != want {
		c.dropPending(sa)
		return []payload{note(nInvalidSyntax)}
	}
	ours, shared, err := c.kex.respond(method, public)
	if err != nil {
		c.dropPending(sa)
		return []payload{note(nInvalidSyntax)}
	}
	p.more = append(p.more, shared)
	p.slot = slot + 1
	reply := []payload{kePayload(method, ours)}
	if _, _, more := p.suite.nextAddKE(p.slot); more {
		return append(reply, note(nAdditionalKE, p.link...))
	}
	sa.pending = nil
	c.finishServe(sa, &p.agreement, p.in)
	return reply
}

// byOutbound finds a child by the SPI that the peer receives with.
func (sa *ikeSA) byOutbound(spi uint32) *child {
	for _, ch := range sa.children {
		if ch.SPIOut == spi {
			return ch
		}
	}
	return nil
}
