package ike

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"time"
)

type childState uint8

const (
	chUp       childState = iota
	chReplaced            // rekeyed; whoever rekeyed it deletes it
	chDeleting            // our Delete is under way, or queued
)

// child is one child SA pair.
type child struct {
	ChildSA // without keys
	home    *ikeSA
	cfg     *Child
	suite   suite
	state   childState
	using   bool // our outbound traffic goes here
	seen    bool // the peer has used it
	since   time.Time

	origin   origin
	rekeyIn  *rekeyIn // a rekey by the peer
	next     *child   // what replaces it
	rekeyAt  time.Time
	hardAt   time.Time // no rekey worked until then
	expireAt time.Time // the peer should have deleted it until then
	rekeying bool      // a rekey of ours is queued or under way
	packet   Flow      // that has asked for it
	beside   bool      // and that the peer has left out
	surplus  bool      // lost a collision: to be deleted, and of no interest to people
}

// origin is where a child goes back to through all its rekeys: who asked for
// it, and the lower nonce of that exchange.
type origin struct {
	ours bool
	low  []byte
}

func (ch *child) due() time.Time {
	t := sooner(ch.expireAt, ch.hardAt)
	if ch.state == chUp && !ch.rekeying {
		t = sooner(t, ch.rekeyAt)
	}
	return t
}

// negotiated is a child on which both sides agree, before it has keys.
type negotiated struct {
	cfg           *Child
	mode          Mode
	suite         suite
	spiIn, spiOut uint32
	local, remote []TrafficSelector
	noTFC         bool
}

// childOffer is what we propose for a child.
type childOffer struct {
	wish
	spi      uint32
	props    []Proposal
	tsi, tsr []TrafficSelector
	anywhere bool // tsi is everything, because our address is still to be lent
}

// errNoTraffic says that a child could carry nothing with this peer now.
var errNoTraffic = errors.New("no traffic of the policy is between the addresses that the two sides have now")

// reserve draws an inbound SPI; release gives it back, unless a child has it.
func (c *Core) reserve() (uint32, error) {
	s, err := c.newChildSPI()
	if err == nil {
		c.spis[s] = nil
	}
	return s, err
}

func (c *Core) release(spi uint32) {
	if ch, ok := c.spis[spi]; ok && ch == nil {
		delete(c.spis, spi)
		c.act(Action{Kind: Forget, Child: ChildSA{SPIIn: spi}})
	}
}

// offerChild makes an offer. In IKE_AUTH there is no key exchange to offer
// (RFC 7296 section 1.2).
func (c *Core) offerChild(sa *ikeSA, w wish, inAuth bool) (*childOffer, error) {
	cfg := w.cfg
	o := &childOffer{wish: w, tsi: sa.localTS(cfg), tsr: sa.remoteTS(cfg)}
	if p := sa.peer; inAuth && len(cfg.LocalTS) == 0 && cfg.Mode == Tunnel && (p.RequestIPv4 || p.RequestIPv6) {
		// We do not know our address yet: offer everything, and be narrowed
		// to it (RFC 7296 section 2.19). The packet that asks is from another.
		o.tsi, w.packet, o.anywhere = nil, Flow{}, true
		if p.RequestIPv4 {
			o.tsi = append(o.tsi, SelectorOf(netip.PrefixFrom(netip.IPv4Unspecified(), 0)))
		}
		if p.RequestIPv6 {
			o.tsi = append(o.tsi, SelectorOf(netip.PrefixFrom(netip.IPv6Unspecified(), 0)))
		}
	}
	if len(o.tsi) == 0 || len(o.tsr) == 0 {
		return nil, errNoTraffic
	}
	if w.packet.within(o.tsi, o.tsr) && max(len(o.tsi), len(o.tsr)) < MaxSelectors {
		o.tsi = append([]TrafficSelector{w.packet.Local}, o.tsi...)
		o.tsr = append([]TrafficSelector{w.packet.Remote}, o.tsr...)
	} else {
		o.packet = Flow{} // it is not asked for
	}
	var err error
	if o.spi, err = c.reserve(); err != nil {
		return nil, err
	}
	for _, p := range cfg.proposals() {
		for _, q := range p.byKE(inAuth) {
			q.spi = binary.BigEndian.AppendUint32(nil, o.spi)
			o.props = append(o.props, q)
		}
	}
	c.act(Action{Kind: Expect, Child: ChildSA{SPIIn: o.spi, Protocol: cfg.proto(), Peer: sa.peer.Name, Name: cfg.Name}})
	return o, nil
}

// likeBefore puts proposals without a length of sequence numbers first in the rekey
// of a child whose peer had made such, and takes no others (see withoutESN).
func (o *childOffer) likeBefore(s *suite) {
	if !s.esnUnsaid {
		return
	}
	var bare []Proposal
	for _, p := range o.props {
		if slices.Contains(p.of(TransformESN), Transform{Type: TransformESN, ID: esnNo}) {
			bare = append(bare, p.without(func(t Transform) bool { return t.Type == TransformESN }))
		}
	}
	o.props = append(bare, o.props...)
}

func (o *childOffer) saPayload() payload { return saPayload(o.props) }

func (o *childOffer) tsPayloads() []payload {
	return []payload{tsPayload(plTSi, o.tsi), tsPayload(plTSr, o.tsr)}
}

func (o *childOffer) notes() []payload {
	list := []payload{note(nNoTFC)}
	if o.cfg.Mode == Transport {
		list = append(list, note(nUseTransport))
	}
	return list
}

// acceptChild takes the responder's half of a child. Either n or the failure
// is set; on failure the reserved SPI is given back.
func (c *Core) acceptChild(sa *ikeSA, o *childOffer, list []payload, ns notifies, neg negotiation) (n *negotiated, ev Event) {
	ev = Event{Child: o.cfg.Name}
	agreed := false
	defer func() {
		if n == nil {
			c.release(o.spi)
		}
		if n == nil && agreed { // the peer has it installed
			sa.enqueue(&infoTask{list: []payload{deletePayload(o.cfg.proto(), o.spi)}})
		}
	}()
	if e, ok := ns.failure(); ok {
		ev = c.refusal(sa, e, o.props, o)
		ev.Child = o.cfg.Name
		return nil, ev
	}
	agreed = true
	sap, _ := find(list, plSA)
	props, err := parseSA(sap.body)
	if err != nil || len(props) != 1 || len(props[0].spi) != 4 {
		ev.Failure, ev.Detail = Malformed, "the answer has no usable proposal"
		return nil, ev
	}
	s, ok := accepts(o.props, props[0], neg)
	if !ok {
		ev.Failure, ev.Ours, ev.Theirs = NoProposal, proposalText(o.props), proposalText(props)
		return nil, ev
	}
	tsi, tsr, err := parseTSPair(list)
	if err != nil {
		ev.Failure, ev.Detail = Malformed, err.Error()
		return nil, ev
	}
	mode := Tunnel
	if ns.has(nUseTransport) {
		mode = Transport
	}
	if mode != o.cfg.Mode { // RFC 7296 section 1.3.1: then the SA is not wanted
		ev.Failure, ev.Ours, ev.Theirs, ev.Setting = WrongMode, o.cfg.Mode.String(), mode.String(), "mode"
		return nil, ev
	}
	if mode == Transport && sa.encap() {
		tsi, tsr = throughNAT(tsi, sa.local.Addr()), throughNAT(tsr, sa.remote.Addr())
	}
	if !subset(tsi, o.tsi) || !subset(tsr, o.tsr) {
		ev.Failure, ev.Setting = NoSelectors, differing(o.tsi, o.tsr, tsi, tsr)
		ev.Ours, ev.Theirs = sidesText(o.tsi, o.tsr), sidesText(tsi, tsr)
		return nil, ev
	}
	if o.anywhere {
		// What was offered was everything; what is ours is what was lent.
		ours := sa.limitTS(o.cfg, nil, sa.assigned, sa.local.Addr())
		if tsi = narrow(tsi, ours); len(tsi) == 0 {
			ev.Failure, ev.Setting, ev.Ours = NoSelectors, "request_address", selectorText(ours)
			return nil, ev
		}
	}
	if fail := c.lentToOthers(sa, tsr); fail.Failure != NoFailure {
		fail.Child = o.cfg.Name
		return nil, fail
	}
	return &negotiated{cfg: o.cfg, mode: mode, suite: s, spiIn: o.spi, spiOut: binary.BigEndian.Uint32(props[0].spi),
		local: Distinct(tsi), remote: Distinct(tsr), noTFC: ns.has(nNoTFC)}, Event{}
}

// serveChild negotiates a child as responder. The reply holds the SA and TS
// payloads, or the error for the peer. Of a rekeyed child, the new one may
// hold what the policy allows now (RFC 7296 section 2.9.2).
func (c *Core) serveChild(sa *ikeSA, list []payload, ns notifies, neg negotiation, old *child) (n *negotiated, reply []payload, ev Event) {
	refuse := func(kind uint16, ev Event) (*negotiated, []payload, Event) {
		return nil, []payload{note(kind)}, ev
	}
	sap, _ := find(list, plSA)
	theirs, err := parseSA(sap.body)
	if err != nil {
		return refuse(nInvalidSyntax, Event{Failure: Malformed, Detail: err.Error()})
	}
	tsi, tsr, err := parseTSPair(list)
	if err != nil {
		return refuse(nInvalidSyntax, Event{Failure: Malformed, Detail: err.Error()})
	}
	if len(sa.children) >= c.cfg.Limits.Children {
		return refuse(nNoAdditionalSAs, Event{Failure: TooMany, Detail: "children of one IKE SA"})
	}
	mode := Tunnel
	if ns.has(nUseTransport) {
		mode = Transport
	}
	theirs = slices.DeleteFunc(theirs, func(p Proposal) bool { return len(p.spi) != 4 })
	if mode == Transport && sa.encap() {
		tsi, tsr = throughNAT(tsi, sa.remote.Addr()), throughNAT(tsr, sa.local.Addr())
	}
	if len(sa.lease.addrs()) > 0 {
		tsi = dynamicEnd(tsi)
	}
	ev = Event{Failure: NoSelectors, Theirs: sidesText(tsr, tsi), Setting: allSelectors}
	if len(tsi) == 0 || len(tsr) == 0 {
		ev.Detail = "the peer's traffic selectors are of kinds that mean nothing here"
		return refuse(nTSUnacceptable, ev)
	}
	// Those of the mode asked for come first, and of these such as hold what
	// the peer wants most, its first selectors (RFC 7296 section 2.9).
	cfgs := slices.Clone(sa.peer.Children)
	first := func(c *Child) bool { return subset(tsi[:1], sa.remoteTS(c)) && subset(tsr[:1], sa.localTS(c)) }
	slices.SortStableFunc(cfgs, func(a, b *Child) int {
		return cmp.Or(cmp.Compare(btoi(a.Mode != mode), btoi(b.Mode != mode)), -cmp.Compare(btoi(first(a)), btoi(first(b))))
	})
	for _, cfg := range cfgs {
		if old != nil && cfg != old.cfg {
			continue
		}
		ev.Child = cfg.Name
		// A tunnel may be answered to whoever asks for transport (RFC 7296
		// section 1.3.1), never the other way round.
		if mode == Tunnel && cfg.Mode == Transport {
			if ev.Failure != NoProposal {
				ev.Failure, ev.Ours, ev.Theirs, ev.Setting = WrongMode, cfg.Mode.String(), mode.String(), "mode"
			}
			continue
		}
		remote, local := narrow(tsi, sa.remoteTS(cfg)), narrow(tsr, sa.localTS(cfg))
		if len(remote) == 0 || len(local) == 0 {
			switch {
			case ev.Failure != NoSelectors:
			case sa.unshown() && sa.ownAddress(cfg):
				ev.Detail = "the peer has not shown that it hears us at " + sa.remote.Addr().String() + ", only at " + sa.shown.String() + ": for what is its own address it has to call from there"
			case sa.unlent(cfg):
				ev.Failure, ev.Setting = NoAddress, "pool"
				ev.Detail = "the caller has asked for no address, and nobody has one of the pool that was not lent: have it ask for one as it calls (ipfw: request_address = true)"
			default:
				ev.Ours, ev.Setting = sa.outOf(cfg, tsr, tsi)
			}
			continue
		}
		if fail := c.lentToOthers(sa, remote); fail.Failure != NoFailure {
			if ev.Failure != NoProposal {
				fail.Child, ev = cfg.Name, fail
			}
			continue
		}
		s, answer, ok := choose(cfg.proposals(), theirs, neg)
		if !ok {
			ev = Event{Failure: NoProposal, Child: cfg.Name, Ours: proposalText(cfg.proposals()), Theirs: proposalText(theirs),
				Nearest: nearest(cfg.proposals(), theirs, neg), Setting: "proposals"}
			continue
		}
		if !neg.noKE && s.ke != neg.ke && s.ke != KENone {
			return nil, []payload{note(nInvalidKEPayload, byte(s.ke>>8), byte(s.ke))}, Event{}
		}
		spi, err := c.reserve()
		if err != nil {
			return refuse(nTemporaryFailure, Event{Failure: BadRandomness, Detail: err.Error()})
		}
		n = &negotiated{cfg: cfg, mode: cfg.Mode, suite: s, spiIn: spi, spiOut: binary.BigEndian.Uint32(answer.spi),
			local: local, remote: remote, noTFC: ns.has(nNoTFC)}
		answer.spi = binary.BigEndian.AppendUint32(nil, spi)
		reply = []payload{saPayload([]Proposal{answer}), tsPayload(plTSi, remote), tsPayload(plTSr, local), note(nNoTFC)}
		if cfg.Mode == Transport {
			reply = append(reply, note(nUseTransport))
		}
		return n, reply, Event{}
	}
	switch ev.Failure {
	case NoProposal, WrongMode:
		return refuse(nNoProposalChosen, ev)
	}
	return refuse(nTSUnacceptable, ev)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// addSurplus installs a child that only receives, and of which nobody hears.
func (c *Core) addSurplus(sa *ikeSA, n *negotiated, in, out Keys, from origin) {
	events := len(c.out.Events)
	c.addChild(sa, n, in, out, false, nil, from).surplus = true
	c.out.Events = c.out.Events[:events]
}

// addChild installs a child. in and out are its keys, which are handed on and
// not kept.
func (c *Core) addChild(sa *ikeSA, n *negotiated, in, out Keys, use bool, old *child, from origin) *child {
	c.nextID++
	ch := &child{home: sa, cfg: n.cfg, suite: n.suite, using: use, origin: from, since: c.now, ChildSA: ChildSA{
		ID: c.nextID, IKE: sa.id, Peer: sa.peer.Name, Name: n.cfg.Name,
		Protocol: n.suite.proto, Mode: n.mode, SPIIn: n.spiIn, SPIOut: n.spiOut,
		ESN: n.suite.esn, NoTFC: n.noTFC, LocalTS: n.local, RemoteTS: n.remote, RemoteID: sa.remoteID,
		Assigned: sa.assigned, DNS: sa.dns, Domains: sa.domains,
	}}
	if n.suite.proto == ProtoESP {
		ch.Encryption = Transform{Type: TransformENCR, ID: n.suite.encr, Bits: n.suite.encrBits}.String()
	}
	if n.suite.integ != IntegNone {
		ch.Integrity = Transform{Type: TransformINTEG, ID: n.suite.integ}.String()
	}
	ch.place(sa)
	life := or(n.cfg.Lifetime, defaultLife)
	ch.rekeyAt = c.now.Add(c.jitter(life))
	ch.hardAt = c.now.Add(life + life/10 + time.Minute)
	ev := Event{Kind: ChildUp, Suite: n.suite.String()}
	if old != nil {
		ch.Replaces, old.next, ev.Kind, ch.origin = old.ID, ch, ChildRekeyed, old.origin
	}
	sa.children = append(sa.children, ch)
	c.spis[ch.SPIIn] = ch
	c.index.ids[ch.ID] = ch
	full := ch.ChildSA
	full.In, full.Out = in, out
	c.act(Action{Kind: Install, Use: use, Child: full})
	c.childEvent(sa, ch, ev)
	return ch
}

// oneOfEach settles what happens when both sides ask for the same child at
// once, after the manner of RFC 7296 section 2.8.1: of two with the same
// selectors, the one with the lowest nonce is deleted by the side that asked
// for it.
func (c *Core) oneOfEach(sa *ikeSA, ch *child) {
	for _, o := range sa.children {
		if o == ch || o.cfg != ch.cfg || o.origin.ours == ch.origin.ours || o.state != chUp || o.next != nil ||
			!slices.Equal(o.LocalTS, ch.LocalTS) || !slices.Equal(o.RemoteTS, ch.RemoteTS) {
			continue
		}
		lose := ch
		if bytes.Compare(o.origin.low, ch.origin.low) < 0 {
			lose = o
		}
		if lose.origin.ours {
			lose.surplus = true
			c.deleteChild(sa, lose)
		}
	}
}

// place sets the endpoints of a child from its IKE SA.
func (ch *child) place(sa *ikeSA) {
	ch.Local, ch.Remote, ch.UDPEncap = sa.local.Addr(), sa.remote.Addr(), sa.encap()
	ch.LocalPort, ch.RemotePort = 0, 0
	if ch.UDPEncap {
		ch.LocalPort, ch.RemotePort = sa.local.Port(), sa.remote.Port()
	}
}

// use makes a child the one our traffic goes by, unless what replaces it
// already is.
func (c *Core) use(ch *child) {
	for n := ch.next; n != nil; n = n.next {
		if n.using {
			return
		}
	}
	if !ch.using {
		ch.using = true
		c.act(Action{Kind: UseSA, Child: ch.ChildSA})
	}
}

// dropChild removes a child, at once or after it has lingered. A peer that rekeys
// without end has no more of them linger than it may have children.
func (c *Core) dropChild(ch *child, failed bool, linger time.Duration) {
	delete(c.spis, ch.SPIIn)
	delete(c.index.ids, ch.ID)
	if n := ch.home.lingers; linger > 0 && *n < c.cfg.Limits.Children {
		*n++
		c.going = append(c.going, lingering{c.now.Add(linger), ch.ChildSA, n})
		c.gone[ch.SPIIn] = struct{}{}
		return
	}
	c.act(Action{Kind: Remove, Child: ch.ChildSA, Failed: failed})
}

// removeChild takes a child out of its IKE SA. One that has been rekeyed
// still receives for a moment.
func (c *Core) removeChild(sa *ikeSA, ch *child) {
	i := slices.Index(sa.children, ch)
	if i < 0 {
		return
	}
	sa.children = slices.Delete(sa.children, i, i+1)
	if p := sa.pending; p != nil && p.old == ch {
		c.dropPending(sa)
	}
	for _, o := range sa.children { // it was to replace another, and lost
		if o.ID == ch.Replaces {
			ch.surplus = true
		}
		if o.next == ch {
			o.next = nil
		}
		if o.rekeyIn != nil && o.rekeyIn.child == ch {
			o.rekeyIn, o.expireAt = nil, time.Time{}
		}
	}
	if ch.next == nil {
		c.childEvent(sa, ch, Event{Kind: ChildDown})
		c.leave(sa, ch, false)
		return
	}
	c.use(ch.next)
	c.dropChild(ch, false, c.cfg.Linger)
}

// tickChild does what is due for one child.
func (c *Core) tickChild(sa *ikeSA, ch *child) {
	due := func(t time.Time) bool { return !t.IsZero() && !t.After(c.now) }
	switch {
	case due(ch.expireAt) || due(ch.hardAt):
		ch.expireAt, ch.hardAt = time.Time{}, time.Time{}
		if ch.next != nil {
			c.use(ch.next)
		}
		lost := ch.state == chUp && ch.next == nil && !ch.surplus
		c.deleteChild(sa, ch)
		if lost && sa.always(ch.cfg) { // behind the Delete
			sa.enqueue(&createTask{wish: wish{ch.cfg, ch.packet}})
		}
	case ch.state == chUp && !ch.rekeying && due(ch.rekeyAt):
		c.rekeyChild(sa, ch)
	}
}
