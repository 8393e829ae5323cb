package ike

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"
)

type purpose uint8

const (
	newChild purpose = iota
	rekeyChild
	rekeyIKE
)

// createTask is a CREATE_CHILD_SA exchange of ours (RFC 7296 section 1.3),
// with the IKE_FOLLOWUP_KE exchanges behind it (RFC 9370 section 2.2.4).
type createTask struct {
	wish
	purpose purpose
	old     *child
	group   uint16 // the group the peer asked for
	retries int
	tries   int // that came to nothing, in a row; see askAgain

	offer *childOffer
	props []Proposal // of an IKE SA
	spi   uint64
	ni    []byte
	kex   keyExchange

	stillborn []uint32 // SPIs that the peer has deleted before we knew them

	// Between CREATE_CHILD_SA and the last IKE_FOLLOWUP_KE.
	got *agreement
}

// agreement is what CREATE_CHILD_SA has settled, on either side.
type agreement struct {
	purpose purpose
	suite   suite
	n       *negotiated // of a child
	spi     uint64      // of the peer, for an IKE SA
	mine    uint64
	old     *child
	ni, nr  []byte
	shared  []byte
	more    [][]byte // secrets of additional key exchanges
	slot    int
	link    []byte
	kex     keyExchange
}

// pendingCreate is an agreement that waits for the peer's IKE_FOLLOWUP_KE.
type pendingCreate struct {
	agreement
	in    *rekeyIn
	until time.Time
}

// rekeyIn is a rekey by the peer. Both new SAs are zero while IKE_FOLLOWUP_KE
// exchanges are missing.
type rekeyIn struct {
	low   []byte
	child *child
	sa    *ikeSA
}

// done says that the rekey has made an SA, and that it or what has replaced
// it is still there.
func (r *rekeyIn) done() bool {
	if r == nil || r.sa == nil {
		return r != nil && r.child != nil
	}
	sa := r.sa
	for sa.next != nil {
		sa = sa.next
	}
	return sa.state != stDead
}

func (a *agreement) wipe() {
	wipe(a.shared)
	wipe(a.more...)
}

// abandon gives up what a request has reserved.
func (t *createTask) abandon(c *Core) {
	if t.offer != nil {
		c.release(t.offer.spi)
	}
	if t.got != nil {
		t.got.wipe()
	}
	t.offer, t.got, t.kex = nil, nil, nil
}

func (t *createTask) build(c *Core, sa *ikeSA) (uint8, []payload, bool) {
	if t.got != nil {
		return t.followup(c, sa)
	}
	if sa.state != stUp {
		return 0, nil, false
	}
	switch t.purpose {
	case newChild:
		if sa.granted(t.wish) {
			return 0, nil, false
		}
	case rekeyChild:
		if !slices.Contains(sa.children, t.old) || t.old.state != chUp || t.old.rekeyIn.done() {
			return 0, nil, false
		}
		t.wish = wish{t.old.cfg, t.old.packet}
	case rekeyIKE:
		if sa.rekeyIn.done() {
			return 0, nil, false
		}
	}
	list, err := t.request(c, sa)
	if err != nil {
		t.abandon(c)
		if err != errNoTraffic {
			c.fail(sa, Event{Failure: BadRandomness, Detail: err.Error()})
			c.tryLater(sa, t)
			return 0, nil, false
		}
		c.fail(sa, Event{Failure: NoSelectors, Child: t.cfg.Name, Detail: err.Error()})
		if t.purpose == rekeyChild {
			c.deleteChild(sa, t.old)
		}
		c.askAgain(sa, t.wish, t.tries)
		return 0, nil, false
	}
	return exCreateChildSA, list, true
}

func (t *createTask) request(c *Core, sa *ikeSA) (list []payload, err error) {
	if t.ni, err = c.random(nonceLen); err != nil {
		return nil, err
	}
	var props []Proposal
	if t.purpose == rekeyIKE {
		if t.spi, err = c.newSPI(); err != nil {
			return nil, err
		}
		// What works is proposed first.
		props = append([]Proposal{sa.suite.proposal()}, sa.peer.proposals()...)
		for i := range props {
			props[i].spi = binary.BigEndian.AppendUint64(nil, t.spi)
		}
		t.props = props
	} else {
		if t.offer, err = c.offerChild(sa, t.wish, false); err != nil {
			return nil, err
		}
		if t.purpose == rekeyChild {
			t.offer.likeBefore(&t.old.suite)
			spi := binary.BigEndian.AppendUint32(nil, t.old.SPIIn)
			list = append(list, notify{proto: t.old.Protocol, kind: nRekeySA, spi: spi}.payload())
		}
		list = append(list, t.offer.notes()...)
		props = t.offer.props
	}
	list = append(list, saPayload(props), payload{kind: plNonce, body: t.ni})
	g := t.guess(sa.suite.ke, props)
	if g != KENone {
		if t.kex, err = c.kex.start(g); err != nil {
			return nil, err
		}
		list = append(list, kePayload(g, t.kex.public()))
	}
	if t.offer != nil {
		list = append(list, t.offer.tsPayloads()...)
	}
	return list, nil
}

// guess is the key exchange to make: the one that the peer has asked for, else
// the one that the IKE SA was made with, else the first offered. libreswan
// answers another one than it would choose by INVALID_SYNTAX.
func (t *createTask) guess(known uint16, props []Proposal) uint16 {
	g := t.group
	for _, p := range props {
		switch {
		case t.group != KENone:
		case slices.Contains(p.Transforms, Transform{Type: TransformKE, ID: known}):
			return known
		case g == KENone:
			g = p.group()
		}
	}
	return g
}

// tryLater puts a task back into the queue.
func (c *Core) tryLater(sa *ikeSA, t *createTask) { sa.enqueueAt(t, c.retryDelay()) }

func (t *createTask) answer(c *Core, sa *ikeSA, m *opened, ns notifies) {
	if sa.state != stUp && t.purpose != rekeyIKE {
		t.abandon(c)
		return
	}
	if n, ok := ns.failure(); ok {
		t.failed(c, sa, n)
		return
	}
	if m.exchange == exFollowupKE {
		t.followupAnswer(c, sa, m, ns)
		return
	}
	a, ev := t.agree(c, sa, m, ns)
	if a == nil {
		t.abandon(c)
		c.giveUp(sa, t, ev)
		return
	}
	t.got = a
	if _, _, more := a.suite.nextAddKE(0); more {
		n, ok := ns.get(nAdditionalKE)
		if !ok {
			t.abandon(c)
			c.giveUp(sa, t, Event{Failure: Malformed, Detail: "CREATE_CHILD_SA without ADDITIONAL_KEY_EXCHANGE"})
			return
		}
		a.link = bytes.Clone(n.data)
		if t.lost(sa) { // the exchange would make an SA only to delete it
			t.abandon(c)
			return
		}
		sa.enqueueFirst(t)
		return
	}
	t.finish(c, sa)
}

// lost says that a colliding rekey of the peer wins: the lowest of the four
// nonces is ours (RFC 7296 section 2.8.1).
func (t *createTask) lost(sa *ikeSA) bool {
	r := sa.rekeyIn
	switch t.purpose {
	case rekeyChild:
		r = t.old.rekeyIn
	case newChild:
		return false
	}
	if r != nil && r.sa != nil && !r.done() {
		return false
	}
	return r != nil && bytes.Compare(lowest(t.got.ni, t.got.nr), r.low) < 0
}

// agree reads the response to CREATE_CHILD_SA.
func (t *createTask) agree(c *Core, sa *ikeSA, m *opened, ns notifies) (*agreement, Event) {
	bad := func(format string) (*agreement, Event) {
		return nil, Event{Failure: Malformed, Detail: "CREATE_CHILD_SA: " + format}
	}
	nr, err := parseNonce(m.payloads)
	if err != nil {
		return bad(err.Error())
	}
	a := &agreement{purpose: t.purpose, old: t.old, mine: t.spi, ni: t.ni, nr: bytes.Clone(nr)}
	if t.purpose == rekeyIKE {
		sap, _ := find(m.payloads, plSA)
		props, err := parseSA(sap.body)
		if err != nil || len(props) != 1 || len(props[0].spi) != 8 {
			return bad("the answer has no usable proposal")
		}
		s, ok := accepts(t.props, props[0], negotiation{})
		if !ok {
			return nil, Event{Failure: NoProposal, Ours: proposalText(t.props), Theirs: proposalText(props)}
		}
		a.suite, a.spi = s, binary.BigEndian.Uint64(props[0].spi)
		if a.spi == 0 {
			return bad("SPI zero")
		}
	} else {
		n, ev := c.acceptChild(sa, t.offer, m.payloads, ns, negotiation{})
		if n == nil {
			return nil, ev
		}
		a.n, a.suite = n, n.suite
	}
	if a.suite.ke != KENone {
		kep, _ := find(m.payloads, plKE)
		g, public, err := parseKE(kep.body)
		if err != nil || t.kex == nil || g != t.kex.method() || g != a.suite.ke {
			return bad("the key exchange is not the one that was agreed")
		}
		if a.shared, err = t.kex.shared(public); err != nil {
			return bad(err.Error())
		}
	} else if t.purpose == rekeyIKE {
		return bad("no key exchange")
	}
	return a, Event{}
}

// failed takes an error notification.
func (t *createTask) failed(c *Core, sa *ikeSA, n notify) {
	offered, o := t.props, t.offer
	if o != nil {
		offered = o.props
	}
	t.abandon(c)
	if sa.state != stUp {
		return
	}
	collided := t.purpose == rekeyIKE && sa.rekeyIn.done() || t.purpose == rekeyChild && t.old.rekeyIn.done()
	switch {
	case n.kind == nInvalidKEPayload && len(n.data) == 2 && t.retries < initRetries:
		g := binary.BigEndian.Uint16(n.data)
		if slices.ContainsFunc(offered, func(p Proposal) bool { return slices.Contains(p.Transforms, Transform{Type: TransformKE, ID: g}) }) {
			t.group = g
			t.retries++
			sa.enqueueFirst(t)
			return
		}
		c.giveUp(sa, t, c.refusal(sa, n, offered, o))
	case collided && t.purpose == rekeyIKE:
		// Only the peer's rekey went through (RFC 7296 section 2.25.2).
		c.adopt(sa, sa.rekeyIn.sa)
	case collided:
	case n.kind == nTemporaryFailure || n.kind == nStateNotFound:
		c.tryLater(sa, t)
	case n.kind == nNoAdditionalSAs && (t.purpose != newChild || len(sa.children) == 0) && len(sa.children) < 2:
		// The peer makes children with an IKE SA only (RFC 7296 section 4):
		// another one replaces all.
		if t.purpose == newChild {
			sa.enqueue(t)
		}
		ev := c.peerError(sa, n)
		ev.Detail = "the peer makes no SAs but with a new IKE SA: this one ends"
		c.farewell(sa, ev)
	case n.kind == nChildSANotFound && t.purpose == rekeyChild:
		// RFC 7296 section 2.25: the child is gone over there; begin anew.
		if slices.Contains(sa.children, t.old) {
			c.removeChild(sa, t.old)
			sa.enqueue(&createTask{wish: wish{t.old.cfg, t.old.packet}})
		}
	default:
		c.giveUp(sa, t, c.refusal(sa, n, offered, o))
	}
}

// giveUp reports a failed CREATE_CHILD_SA. What was to be rekeyed lives on;
// another attempt follows before its hard lifetime ends.
func (c *Core) giveUp(sa *ikeSA, t *createTask, ev Event) {
	if t.cfg != nil {
		ev.Child = t.cfg.Name
	}
	if t.purpose == newChild {
		c.refused(sa, t.wish, t.tries, ev)
		return
	}
	c.fail(sa, ev)
	switch t.purpose {
	case rekeyChild:
		t.old.rekeying = false
		t.old.rekeyAt = c.now.Add(max(or(t.cfg.Lifetime, defaultLife)/20, 10*time.Second))
	case rekeyIKE:
		sa.rekeyAt = c.now.Add(max(or(sa.peer.Lifetime, defaultIKELife)/20, 10*time.Second))
	}
}

// finish makes the SA as initiator of the exchange.
func (t *createTask) finish(c *Core, sa *ikeSA) {
	a := t.got
	lost := t.lost(sa)
	defer t.abandon(c)
	if t.purpose == rekeyIKE {
		fresh := c.rekeyedIKE(sa, a, true)
		if fresh == nil {
			return
		}
		c.settleIKE(sa, fresh, lost)
		return
	}
	old := t.old
	if slices.Contains(t.stillborn, a.n.spiOut) {
		if old != nil {
			old.rekeying = false
		}
		return
	}
	toR, toI := childKeys(sa.suite.prf, sa.keys.d, &a.suite, a.shared, a.ni, a.nr, a.more...)
	ch := c.addChild(sa, a.n, toI, toR, !lost, old, origin{true, lowest(a.ni, a.nr)})
	switch {
	case lost:
		// The peer's new child stays. Ours goes, by our own Delete; the
		// peer deletes the old one.
		ch.surplus = true
		if old != nil {
			old.next = old.rekeyIn.child
		}
		c.deleteChild(sa, ch)
	case t.purpose == newChild:
		c.oneOfEach(sa, ch)
		c.besides(sa, ch, t.offer.packet)
		c.supersede(sa)
	default:
		if r := old.rekeyIn; r != nil {
			if r.child != nil { // the peer's to delete
				r.child.surplus = true
				r.child.expireAt = c.now.Add(abandonTime)
			}
			if sa.pending != nil && sa.pending.old == old {
				c.dropPending(sa)
			}
		}
		ch.packet, ch.beside = old.packet, old.beside
		old.state = chReplaced
		if slices.Contains(sa.children, old) {
			c.deleteChild(sa, old)
		}
		c.oneOfEach(sa, ch)
	}
}

// followup builds the next IKE_FOLLOWUP_KE.
func (t *createTask) followup(c *Core, sa *ikeSA) (uint8, []payload, bool) {
	a := t.got
	slot, method, ok := a.suite.nextAddKE(a.slot)
	kex, err := c.kex.start(method)
	if !ok || err != nil || sa.state != stUp {
		t.abandon(c)
		c.giveUp(sa, t, Event{Failure: InternalFailure, Detail: "IKE_FOLLOWUP_KE could not be made"})
		return 0, nil, false
	}
	a.slot, a.kex = slot, kex
	return exFollowupKE, []payload{kePayload(method, kex.public()), note(nAdditionalKE, a.link...)}, true
}

func (t *createTask) followupAnswer(c *Core, sa *ikeSA, m *opened, ns notifies) {
	a := t.got
	kep, _ := find(m.payloads, plKE)
	method, public, err := parseKE(kep.body)
	var shared []byte
	if err == nil && method == a.kex.method() {
		shared, err = a.kex.shared(public)
	}
	if err != nil || shared == nil {
		t.abandon(c)
		c.giveUp(sa, t, Event{Failure: Malformed, Detail: "IKE_FOLLOWUP_KE without the key exchange that was agreed"})
		return
	}
	a.more = append(a.more, shared)
	a.slot++
	if _, _, more := a.suite.nextAddKE(a.slot); more {
		n, _ := ns.get(nAdditionalKE)
		a.link = bytes.Clone(n.data)
		sa.enqueueFirst(t)
		return
	}
	t.finish(c, sa)
}
