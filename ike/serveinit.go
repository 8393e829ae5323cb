package ike

import (
	"net/netip"
	"slices"
)

// This file is IKE_SA_INIT as responder.

// serveInit answers a stranger. No state is made before all of the message
// has been read and a cookie, if one is due, has come back.
func (c *Core) serveInit(h header, d Datagram) {
	busy := c.jobs.busy(c.guard.standing(group(d.Remote.Addr()), c.now), len(d.Data))
	if busy || c.guard.full(d.Remote.Addr(), &c.cfg.Limits) || len(c.sas) >= c.cfg.Limits.SAs {
		c.stats.Failures[TooMany]++
		c.stats.Dropped++
		return
	}
	list, _, err := parsePayloads(h.next, d.Data[headerLen:])
	ns, err2 := parseNotifies(list)
	ni, err3 := parseNonce(list)
	if err != nil || err2 != nil || err3 != nil {
		c.stats.Dropped++
		return
	}
	answer := header{spiI: h.spiI, exchange: exIKESAInit, flags: flagResponse}
	hears := false
	if c.guard.wantsCookie(d.Remote.Addr(), &c.cfg.Limits, c.now) {
		if hears = c.hearsUs(h, d, ni, ns); !hears {
			return
		}
	}
	if kind := unknownCritical(list); kind != 0 {
		c.reply(d, encodePlain(answer, []payload{note(nUnsupportedCritical, kind)}))
		return
	}
	sap, ok := find(list, plSA)
	kep, ok2 := find(list, plKE)
	if !ok || !ok2 {
		c.stats.Dropped++
		return
	}
	theirs, err := parseSA(sap.body)
	group, public, err2 := parseKE(kep.body)
	if err != nil || err2 != nil {
		c.stats.Dropped++
		return
	}
	s, chosen, ok := c.chooseIKE(d, theirs, group, ns)
	if !ok {
		c.reply(d, encodePlain(answer, []payload{note(nNoProposalChosen)}))
		return
	}
	if s.ke != group {
		c.reply(d, encodePlain(answer, []payload{note(nInvalidKEPayload, byte(s.ke>>8), byte(s.ke))}))
		return
	}
	if costly(s.ke) && !hears {
		if hears = c.hearsUs(h, d, ni, ns); !hears {
			return
		}
	}
	if c.guard.total >= c.cfg.Limits.HalfOpen && !c.makeRoom(d.Remote.Addr()) {
		c.stats.Failures[TooMany]++
		c.stats.Dropped++
		return
	}
	c.openHalf(h, d, s, chosen, ni, public, ns, list, hears)
}

// hearsUs looks for the cookie by which a stranger shows that it hears us, and
// sends it one if there is none.
func (c *Core) hearsUs(h header, d Datagram, ni []byte, ns notifies) bool {
	n, _ := ns.get(nCookie)
	if c.guard.goodCookie(n.data, h, ni, d.Remote) {
		return true
	}
	if k, err := c.newCookie(h, ni, d.Remote); err == nil {
		c.stats.Cookies++
		c.reply(d, encodePlain(header{spiI: h.spiI, exchange: exIKESAInit, flags: flagResponse}, []payload{note(nCookie, k...)}))
	}
	return false
}

// makeRoom ends a half-open IKE SA, so that another may begin; false: none stands
// back.
func (c *Core) makeRoom(a netip.Addr) bool {
	old := c.guard.places.makeRoom(c.guard.standing(group(a), c.now), c.now, patience)
	if old == nil {
		return false
	}
	c.giveWay(old)
	return true
}

// giveWay ends a half-open IKE SA that stands back.
func (c *Core) giveWay(old *ikeSA) {
	c.fail(old, Event{Failure: TooMany, Detail: "the initiator has not gone on, and others want its place"})
	c.destroy(old, true)
}

// chooseIKE negotiates with every peer that may call from that address.
func (c *Core) chooseIKE(d Datagram, theirs []Proposal, group uint16, ns notifies) (suite, Proposal, bool) {
	var last *Peer
	var lastOurs []Proposal
	usual := false
	for _, p := range c.peers.callers(d.Local.Addr(), d.Remote.Addr()) {
		if usual && p.Proposals == nil {
			continue // as another one's, which did not fit
		}
		usual = usual || p.Proposals == nil
		ours := p.proposals()
		if !ns.has(nIntermediate) { // RFC 9370 section 2.2.1
			ours = slices.DeleteFunc(slices.Clone(ours), func(q Proposal) bool {
				return slices.ContainsFunc(q.Transforms, func(t Transform) bool { return isAddKE(t.Type) })
			})
		}
		if s, answer, ok := choose(ours, theirs, negotiation{ke: group}); ok {
			return s, answer, true
		}
		last, lastOurs = p, ours
	}
	ev := Event{Failure: UnknownPeer, Local: d.Local, Remote: d.Remote, Setting: "remote_endpoint",
		Detail: "no ike block takes calls from this address"}
	if last != nil {
		ev = Event{Failure: NoProposal, Peer: last.Name, Local: d.Local, Remote: d.Remote, Setting: "proposals",
			Ours: proposalText(lastOurs), Theirs: proposalText(theirs), Nearest: nearest(lastOurs, theirs, negotiation{})}
	}
	c.stranger(ev)
	return suite{}, Proposal{}, false
}

// openHalf makes a half-open IKE SA and answers.
func (c *Core) openHalf(h header, d Datagram, s suite, chosen Proposal, ni, public []byte, ns notifies, asked []payload, hears bool) {
	sa := &ikeSA{
		state: stHalfOpen, spiI: h.spiI, local: d.Local, remote: d.Remote, shown: d.Remote.Addr(), lingers: new(int), suite: s, nextIn: 1, index: -1,
		created: c.now, heard: c.now, expireAt: c.now.Add(c.cfg.Limits.HalfOpenTime), hears: hears,
		hs: &handshake{ni: slices.Clone(ni), peerKE: slices.Clone(public), initI: slices.Clone(d.Data)},
	}
	hs := sa.hs
	c.nextID++
	sa.id = c.nextID
	var err, err2 error
	sa.learnNAT(ns) // hashed with the SPIs of the request, where ours is zero
	hs.nr, err = c.random(nonceLen)
	sa.spiR, err2 = c.newSPI()
	if err != nil || err2 != nil {
		c.stats.Failures[BadRandomness]++
		return
	}
	hs.hashes = parseHashes(ns)
	c.sas[sa.spiR] = sa
	sa.initFrom = initKey{d.Remote, h.spiI}
	c.inits[sa.initFrom] = sa
	c.guard.enter(sa)
	peer := slices.Clone(hs.peerKE) // the Core wipes its own when the handshake ends
	work(c, sa, false, len(d.Data), func() (r half) { r.kex, r.err = c.kex.answer(s.ke, peer); return r }, func(r half) {
		if r.err != nil {
			if s.ke == KEMLKEM768 { // no valid key (FIPS 203 section 7.2)
				c.stats.Dropped++
			} else {
				c.stats.Failures[BadRandomness]++
				sa.hears = false // it is not to blame
			}
			c.destroy(sa, true)
			return
		}
		hs.kex = r.kex
		c.answerHalf(sa, d, chosen, ns, asked)
	})
	c.settle(sa)
}

// answerHalf answers the IKE_SA_INIT of a half-open IKE SA.
func (c *Core) answerHalf(sa *ikeSA, d Datagram, chosen Proposal, ns notifies, asked []payload) {
	hs, s := sa.hs, &sa.suite
	list := []payload{saPayload([]Proposal{chosen}), kePayload(s.ke, hs.kex.public()), {kind: plNonce, body: hs.nr}}
	callers := c.peers.callers(d.Local.Addr(), d.Remote.Addr())
	anyPeer := func(f func(*Peer) bool) bool { return slices.ContainsFunc(callers, f) }
	if sa.peerNATT {
		nat := c.natNotes(sa)
		if anyPeer(func(p *Peer) bool { return p.ForceEncap }) {
			clear(nat[0].body[4:])
		}
		list = append(list, nat...)
	}
	if sa.peerNATT && saysPrefersUDP(asked) && len(callers) > 0 && !anyPeer(func(p *Peer) bool { return !p.PreferEncap }) {
		sa.prefersUDP = true
		list = append(list, prefersUDP())
	}
	if ns.has(nFragmentation) && anyPeer(func(p *Peer) bool { return p.Fragments == On }) {
		sa.fragment = true
		list = append(list, note(nFragmentation))
	}
	if len(hs.hashes) > 0 {
		list = append(list, hashesNotify())
	}
	if ns.has(nIntermediate) {
		list = append(list, note(nIntermediate))
	}
	if ns.has(nUsePPK) && anyPeer(func(p *Peer) bool { return len(p.PPKs) > 0 }) {
		hs.ppk = true
		list = append(list, note(nUsePPK))
	}
	// It is offered to those as well who have not: if their offer was taken out
	// on the way, they find the difference. With "never" in all blocks that take
	// the call it is not.
	if len(callers) == 0 || anyPeer(func(p *Peer) bool { return p.FullTranscript != TranscriptNever }) {
		hs.full = ns.has(nFullTranscript)
		sa.transcript = hs.full
		list = append(list, note(nFullTranscript))
	}
	// Who is asked for no certificate need not send one (RFC 7296 section 1.2).
	list = append(list, certRequests(callers...)...)
	list = append(list, note(nChildless))
	hs.initR = encodePlain(sa.header(exIKESAInit, 0, true), list)
	c.reply(d, hs.initR)
}

// readyKeys computes the shared secret of a half-open SA for the first message
// that needs it, and then takes that: a flood of IKE_SA_INIT costs one key pair
// each, no more.
func (c *Core) readyKeys(sa *ikeSA, h header, d Datagram) {
	kex, peer := sa.hs.kex, slices.Clone(sa.hs.peerKE)
	work(c, sa, false, len(d.Data), func() (r secret) { r.shared, r.err = kex.shared(peer); return r }, func(r secret) {
		defer wipe(r.shared)
		if r.err != nil {
			c.stats.Dropped++
			c.destroy(sa, true)
			return
		}
		if c.keySA(sa, seedInit(sa.suite.prf, sa.hs.ni, sa.hs.nr, r.shared)) {
			c.handleRequest(sa, h, d)
		}
	})
}
