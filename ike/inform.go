package ike

import (
	"slices"
	"time"
)

// infoTask is an INFORMATIONAL request whose answer has no content: a probe
// whether the peer lives (RFC 7296 section 2.4), or a message to it.
type infoTask struct{ list []payload }

func (t *infoTask) build(c *Core, sa *ikeSA) (uint8, []payload, bool) {
	return exInformational, t.list, sa.state == stUp
}

func (t *infoTask) answer(c *Core, sa *ikeSA, m *opened, ns notifies) {}

// deleteTask is a Delete of a child, or of the IKE SA if ch is nil (RFC 7296
// section 1.4.1).
type deleteTask struct{ ch *child }

func (t *deleteTask) build(c *Core, sa *ikeSA) (uint8, []payload, bool) {
	if t.ch == nil {
		return exInformational, []payload{deletePayload(ProtoIKE)}, true
	}
	if !slices.Contains(sa.children, t.ch) {
		return 0, nil, false
	}
	return exInformational, []payload{deletePayload(t.ch.Protocol, t.ch.SPIIn)}, true
}

func (t *deleteTask) answer(c *Core, sa *ikeSA, m *opened, ns notifies) {
	if t.ch == nil {
		c.destroy(sa, false)
		return
	}
	for home := sa; home != nil; home = home.next { // moved on by a rekey meanwhile
		c.removeChild(home, t.ch)
		if home != sa {
			c.settle(home)
		}
	}
}

// serveInformational answers INFORMATIONAL, RFC 7296 section 1.4.
func (c *Core) serveInformational(sa *ikeSA, m *opened, ns notifies, d Datagram) {
	reply := c.serveMobike(sa, ns, d)
	var gone []uint32
	var proto uint8
	ended := false
	for _, p := range m.payloads {
		if p.kind != plDelete {
			continue
		}
		kind, spis, err := parseDelete(p.body)
		if err != nil {
			reply = append(reply, note(nInvalidSyntax))
			break
		}
		if kind == ProtoIKE {
			ended = true
			break
		}
		proto = kind
		gone = append(gone, c.peerDeletes(sa, kind, spis)...)
	}
	if len(gone) > 0 {
		reply = append(reply, deletePayload(proto, gone...))
	}
	if sa.state == stUp && sa.hearAuthLifetime(ns, c.now) {
		c.planProof(sa)
	}
	if n, ok := ns.failure(); ok {
		ev := c.peerError(sa, n)
		if n.kind == nAuthFailed && !sa.began && sa.state == stUp && c.now.Sub(sa.up) < atOnce {
			ev.Detail = "the caller has given the IKE SA up at once: it was told of as up, because who is called has to answer before it hears this (RFC 7296 section 2.21.2); " + ev.Detail
		}
		c.fail(sa, ev)
		sa.ending = "the peer has refused it, see above"
		// These end the IKE SA without a Delete (RFC 7296 section 2.21.2):
		// so an initiator tells that it does not accept our AUTH.
		ended = ended || n.kind == nAuthFailed || n.kind == nInvalidSyntax || n.kind == nUnsupportedCritical
	}
	c.respondOrEnd(sa, m, d, reply)
	if ended && sa.state != stDead {
		c.peerEnds(sa)
	}
}

// atOnce is how soon a peer gives up SAs that it has asked for, when it finds in our
// answer what its own policy does not have (RFC 7296 section 1.3.1).
const atOnce = 3 * time.Second

// peerDeletes removes children that the peer has deleted and gives the SPIs
// of the other halves, except where our own Delete is on its way (RFC 7296
// section 1.4.1).
func (c *Core) peerDeletes(sa *ikeSA, proto uint8, spis []uint32) (ours []uint32) {
	for _, spi := range spis {
		home, ch := sa, sa.byOutbound(spi)
		for ch == nil && home.next != nil { // moved on by a rekey meanwhile
			home = home.next
			ch = home.byOutbound(spi)
		}
		if ch == nil && sa.req != nil {
			// Perhaps one that we are making: its answer was lost, and
			// the peer has deleted it already.
			if t, ok := sa.req.task.(*createTask); ok && len(t.stillborn) < 16 {
				t.stillborn = append(t.stillborn, spi)
			}
		}
		if ch == nil || ch.Protocol != proto {
			continue
		}
		crossing := false
		if home.req != nil {
			t, ok := home.req.task.(*deleteTask)
			crossing = ok && t.ch == ch
		}
		if !crossing {
			ours = append(ours, ch.SPIIn)
		}
		lost := ch.next == nil && !ch.surplus && ch.state == chUp
		if lost && !ch.origin.ours && !ch.seen && c.now.Sub(ch.since) < atOnce && c.heir(home, ch) == nil && !c.awaitsHeir(home, ch) {
			c.fail(home, Event{Failure: RefusedByPeer, Child: ch.Name, SPIIn: ch.SPIIn, SPIOut: ch.SPIOut, Setting: "mode",
				Detail: "it has given the SAs up at once, unused: perhaps mode differs; " + home.reasonThere()})
		}
		c.removeChild(home, ch)
		if lost && home.always(ch.cfg) && !home.plans(ch.cfg) {
			home.enqueueAt(&createTask{wish: wish{ch.cfg, ch.packet}}, c.now.Add(c.jitter(10*time.Second)))
		}
		if home != sa {
			c.settle(home)
		}
	}
	return ours
}

// endsIKE says that a message deletes its IKE SA.
func endsIKE(list []payload) bool {
	return slices.ContainsFunc(list, func(p payload) bool {
		return p.kind == plDelete && len(p.body) > 0 && p.body[0] == ProtoIKE
	})
}

// peerEnds: the peer has deleted the IKE SA.
func (c *Core) peerEnds(sa *ikeSA) {
	// Of colliding rekeys only the peer's went through: that one inherits
	// (RFC 7296 section 2.25.2).
	if sa.next == nil && sa.rekeyIn.done() {
		c.adopt(sa, sa.rekeyIn.sa)
	}
	c.destroy(sa, false)
}

// serveMobike handles what RFC 4555 sends in INFORMATIONAL requests.
func (c *Core) serveMobike(sa *ikeSA, ns notifies, d Datagram) (reply []payload) {
	if n, ok := ns.get(nCookie2); ok && len(n.data) >= 8 && len(n.data) <= 64 {
		reply = append(reply, note(nCookie2, n.data...))
	}
	if ns.has(nUpdateSAAddrs) && sa.mobike && !sa.began && sa.state == stUp { // the side that began says so
		if len(sa.peer.From) > 0 && !sa.peer.mayCallFrom(d.Remote.Addr()) {
			return append(reply, note(nUnacceptableAddrs))
		}
		sa.goTo(d.Local, d.Remote)
		sa.learnNAT(ns)
		reply = append(reply, c.natNotes(sa)...)
		c.moved(sa)
		// RFC 4555 section 3.7: ask at the new address whether it is there.
		sa.askThere()
	} else if ns.has(nNATSource) && sa.mobike {
		reply = append(reply, natNotes(sa, d.Local, d.Remote)...)
	}
	return reply
}
