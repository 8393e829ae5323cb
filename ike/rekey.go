package ike

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"
)

// serveRekeyIKE answers a CREATE_CHILD_SA that rekeys the IKE SA, RFC 7296
// section 1.3.2.
func (c *Core) serveRekeyIKE(sa *ikeSA, m *opened) []payload {
	syntax := []payload{note(nInvalidSyntax)}
	ni, err := parseNonce(m.payloads)
	sap, _ := find(m.payloads, plSA)
	theirs, err2 := parseSA(sap.body)
	kep, _ := find(m.payloads, plKE)
	group, public, err3 := parseKE(kep.body)
	if err != nil || err2 != nil || err3 != nil {
		return syntax
	}
	theirs = slices.DeleteFunc(theirs, func(p Proposal) bool { return len(p.spi) != 8 || allZero(p.spi) })
	s, answer, ok := choose(sa.peer.proposals(), theirs, negotiation{ke: group})
	if !ok {
		c.fail(sa, Event{Failure: NoProposal, Ours: proposalText(sa.peer.proposals()), Theirs: proposalText(theirs),
			Nearest: nearest(sa.peer.proposals(), theirs, negotiation{}), Setting: "proposals"})
		return []payload{note(nNoProposalChosen)}
	}
	if s.ke != group {
		return []payload{note(nInvalidKEPayload, byte(s.ke>>8), byte(s.ke))}
	}
	a := &agreement{purpose: rekeyIKE, suite: s, spi: binary.BigEndian.Uint64(answer.spi), ni: bytes.Clone(ni)}
	ours, shared, err := c.kex.respond(group, public)
	if err != nil {
		return syntax
	}
	a.shared = shared
	if a.mine, err = c.newSPI(); err == nil {
		a.nr, err = c.random(nonceLen)
	}
	if err != nil || len(c.sas) >= c.cfg.Limits.SAs {
		return temporary()
	}
	answer.spi = binary.BigEndian.AppendUint64(nil, a.mine)
	in := &rekeyIn{low: lowest(a.ni, a.nr)}
	sa.rekeyIn = in
	return c.agreed(sa, a, in, []payload{saPayload([]Proposal{answer}), {kind: plNonce, body: a.nr}, kePayload(group, ours)})
}

func allZero(b []byte) bool { return !slices.ContainsFunc(b, func(x byte) bool { return x != 0 }) }

// rekeyedIKE makes the new IKE SA, RFC 7296 section 2.18. It has no children
// until it is adopted.
func (c *Core) rekeyedIKE(old *ikeSA, a *agreement, initiator bool) *ikeSA {
	sa := &ikeSA{
		initiator: initiator, state: stUp, peer: old.peer, local: old.local, remote: old.remote, shown: old.shown, lingers: old.lingers,
		remoteID: old.remoteID, localID: old.localID, suite: a.suite, low: old.low,
		fragment: old.fragment, mobike: old.mobike, peerNATT: old.peerNATT, natHere: old.natHere, natPeer: old.natPeer, prefersUDP: old.prefersUDP, transcript: old.transcript,
		assigned: old.assigned, dns: old.dns, domains: old.domains, began: old.began, caller: old.caller, callee: old.callee,
		created: c.now, up: c.now, heard: c.now, aliveAt: old.aliveAt, index: -1,
		proofEnds: old.proofEnds, proofNext: old.proofNext, renews: old.renews, renewal: old.renewal,
		authEnds: old.authEnds, authLife: old.authLife,
	}
	sa.spiI, sa.spiR = a.mine, a.spi
	if !initiator {
		sa.spiI, sa.spiR = a.spi, a.mine
	}
	c.nextID++
	sa.id = c.nextID
	seed := seedNext(old.suite.prf, old.keys.d, a.shared, a.ni, a.nr, a.more...)
	sa.keys = deriveIKE(&sa.suite, seed, a.ni, a.nr, sa.spiI, sa.spiR)
	wipe(seed)
	if !c.startSealers(sa) {
		return nil
	}
	sa.rekeyAt = c.now.Add(c.jitter(or(sa.peer.Lifetime, defaultIKELife)))
	c.sas[sa.mine()] = sa
	c.enroll(sa)
	c.keepFew(sa, old)
	c.settle(sa)
	return sa
}

// settleIKE decides, as initiator of a rekey that was answered, which IKE SA
// lives on (RFC 7296 section 2.8.2).
func (c *Core) settleIKE(old, fresh *ikeSA, lost bool) {
	in := old.rekeyIn
	switch {
	case old.state != stUp:
		// We were told to end it while the rekey was under way, or the
		// peer's own rekey has replaced it.
		fresh.surplus = true
		c.deleteIKE(fresh)
	case lost:
		// Our new SA is the redundant one. The peer deletes the old one.
		fresh.surplus = true
		c.deleteIKE(fresh)
		if in.done() {
			c.adopt(old, in.sa)
			old.expireAt = c.now.Add(abandonTime)
		}
	default:
		if in.done() { // theirs to delete
			in.sa.surplus = true
			in.sa.expireAt = c.now.Add(abandonTime)
			c.settle(in.sa)
		}
		c.dropPending(old)
		c.adopt(old, fresh)
		c.deleteIKE(old)
	}
	c.settle(fresh)
}

// adopt moves the children and the plans of an IKE SA to the one that
// replaces it.
func (c *Core) adopt(old, fresh *ikeSA) {
	for fresh.next != nil { // rekeyed itself before it was adopted
		fresh = fresh.next
	}
	fresh.children = append(fresh.children, old.children...)
	old.children = nil
	for _, ch := range fresh.children {
		ch.IKE, ch.home = fresh.id, fresh
	}
	for _, q := range old.queue {
		switch t := q.task.(type) {
		case *createTask:
			if t.purpose == rekeyIKE {
				continue
			}
		case *deleteTask:
			if t.ch == nil {
				continue
			}
		case *infoTask:
			continue
		}
		fresh.queue = append(fresh.queue, q)
	}
	old.queue, old.next, old.state, old.rekeyAt = nil, fresh, stReplaced, time.Time{}
	fresh.lease = old.lease
	c.leases.pass(old.lease, old.id, fresh.id)
	c.event(fresh, Event{Kind: IKERekeyed, Suite: fresh.suite.String()})
	c.settle(fresh)
}

// rekeyChild plans the rekey of a child.
func (c *Core) rekeyChild(sa *ikeSA, ch *child) {
	ch.rekeying = true
	sa.enqueue(&createTask{purpose: rekeyChild, old: ch})
}

// deleteChild plans the Delete of a child.
func (c *Core) deleteChild(sa *ikeSA, ch *child) {
	if ch.state != chDeleting {
		ch.state = chDeleting
		sa.enqueue(&deleteTask{ch: ch})
	}
}

// deleteIKE plans the Delete of an IKE SA. What else was planned is void.
func (c *Core) deleteIKE(sa *ikeSA) {
	if sa.state == stDeleting || sa.state == stDead {
		return
	}
	if sa.state != stUp && sa.state != stReplaced {
		c.destroyQuietly(sa)
		return
	}
	sa.state, sa.expireAt, sa.rekeyAt = stDeleting, time.Time{}, time.Time{}
	c.clearQueue(sa)
	sa.queue = []queued{{task: &deleteTask{}}}
}
