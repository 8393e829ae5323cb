package ike

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"
)

// handshake is what an IKE SA needs until it is up.
type handshake struct {
	kex    keyExchange
	peerKE []byte // responder: the shared secret is computed at the first IKE_AUTH or IKE_INTERMEDIATE
	keyed  bool

	ni, nr       []byte
	initI, initR []byte // the IKE_SA_INIT messages
	intI, intR   []byte // IntAuth, RFC 9242
	slot         int    // next additional key exchange

	offer   []Proposal // initiator
	cookie  []byte
	retries int
	// told says that people know of the peer's silence, of a call of ours on this
	// port; unreachable is what the kernel or the network says of it.
	told        bool
	repeats     uint16 // responder: times that the last request has come again
	unreachable string
	doom        Event // an unauthenticated error answer; believed if nothing better comes
	hashes      []uint16
	saidFull    bool // initiator: our last IKE_SA_INIT offers full transcript authentication
	full        bool // both sides have offered it: it is in use
	ppk         bool // both sides know RFC 8784
	childless   bool // the responder knows RFC 6023
	askedRaw    bool // the responder asks for a raw public key (RFC 7670)

	want  []wish // to be made; the first goes into IKE_AUTH
	child *childOffer

	eap *eapRun // responder: the peer is in the middle of EAP
}

func (hs *handshake) wipe() { wipe(hs.ni, hs.nr, hs.peerKE, hs.intI, hs.intR) }

// initKey finds the half-open SA of a retransmitted IKE_SA_INIT.
type initKey struct {
	from netip.AddrPort
	spi  uint64
}

const (
	initRetries  = 4               // cookies and INVALID_KE_PAYLOADs we follow
	doomGrace    = 2 * time.Second // how long a better answer may take than an unauthenticated error
	maxCookieLen = 64              // RFC 7296 section 2.6
)

// startIKE begins an IKE SA as its initiator.
func (c *Core) startIKE(p *Peer, local, remote netip.AddrPort, want []wish) *ikeSA {
	sa := &ikeSA{
		initiator: true, state: stInitSent, peer: p, local: local, remote: remote, shown: remote.Addr(), lingers: new(int),
		created: c.now, heard: c.now, index: -1, began: true, caller: local, callee: remote,
		hs: &handshake{offer: p.proposals(), want: want},
	}
	c.nextID++
	sa.id = c.nextID
	var err error
	if sa.hs.ni, err = c.random(nonceLen); err == nil {
		sa.spiI, err = c.newSPI()
	}
	if err == nil {
		first := sa.hs.offer[0].of(TransformKE)[0].ID
		sa.hs.kex, err = c.kex.start(first)
	}
	if err != nil {
		c.fail(sa, Event{Failure: BadRandomness, Detail: err.Error()})
		return nil
	}
	c.sas[sa.spiI] = sa
	c.sendInit(sa)
	c.settle(sa)
	return sa
}

// sendInit sends IKE_SA_INIT, again after a cookie or another group.
func (c *Core) sendInit(sa *ikeSA) {
	hs := sa.hs
	var list []payload
	if hs.cookie != nil {
		list = append(list, note(nCookie, hs.cookie...))
	}
	list = append(list, saPayload(hs.offer), kePayload(hs.kex.method(), hs.kex.public()),
		payload{kind: plNonce, body: hs.ni})
	list = append(list, c.natNotes(sa)...)
	if sa.peer.Fragments == On {
		list = append(list, note(nFragmentation))
	}
	if sa.peer.PreferEncap {
		list = append(list, prefersUDP())
	}
	list = append(list, hashesNotify(), note(nIntermediate))
	if len(sa.peer.PPKs) > 0 {
		list = append(list, note(nUsePPK))
	}
	if hs.saidFull = sa.peer.FullTranscript != TranscriptNever; hs.saidFull {
		list = append(list, note(nFullTranscript))
	}
	hs.initI = encodePlain(sa.header(exIKESAInit, 0, false), list)
	sa.nextOut = 0
	c.launch(sa, exIKESAInit, [][]byte{hs.initI}, nil)
}

// natNotes are the two NAT detection notifications, RFC 7296 section 2.23. A
// source hash of nothing makes the peer see a NAT.
func (c *Core) natNotes(sa *ikeSA) []payload { return natNotes(sa, sa.local, sa.remote) }

func natNotes(sa *ikeSA, local, remote netip.AddrPort) []payload {
	src := natHash(sa.spiI, sa.spiR, local)
	if sa.peer != nil && sa.peer.ForceEncap {
		clear(src)
	}
	return []payload{note(nNATSource, src...), note(nNATDest, natHash(sa.spiI, sa.spiR, remote)...)}
}

// prefersUDP is the Vendor ID payload (RFC 7296 section 3.12) of ipfw's own by
// which two ends agree to carry ESP in UDP without a NAT. Others ignore it.
func prefersUDP() payload { return payload{kind: plVendor, body: []byte("ipfw: ESP in UDP, 1")} }

func saysPrefersUDP(list []payload) bool {
	return slices.ContainsFunc(list, func(p payload) bool { return p.kind == plVendor && bytes.Equal(p.body, prefersUDP().body) })
}

// learnNAT reads the peer's NAT detection.
func (sa *ikeSA) learnNAT(ns notifies) {
	var known bool
	sa.natPeer, known = natBetween(ns, nNATSource, sa.spiI, sa.spiR, sa.remote)
	sa.natHere, _ = natBetween(ns, nNATDest, sa.spiI, sa.spiR, sa.local)
	sa.peerNATT = known
	if known && sa.peer != nil && sa.peer.ForceEncap {
		sa.natHere = true
	}
}

// handleInit takes an IKE_SA_INIT message.
func (c *Core) handleInit(h header, d Datagram) {
	if h.response() {
		sa := c.sas[h.spiI]
		if sa == nil || sa.state != stInitSent || sa.remote != d.Remote || h.flags&flagInitiator != 0 || h.id != 0 {
			c.stats.Dropped++
			return
		}
		list, _, err := parsePayloads(h.next, d.Data[headerLen:])
		ns, err2 := parseNotifies(list)
		if err != nil || err2 != nil || unknownCritical(list) != 0 {
			c.stats.Dropped++
			return
		}
		if sa.job != nil {
			c.hold(sa, h, d)
			return
		}
		c.initAnswer(sa, h, d, list, ns)
		c.settle(sa)
		return
	}
	if h.flags&flagInitiator == 0 || h.spiR != 0 || h.id != 0 || len(d.Data) > maxInit {
		c.stats.Dropped++
		return
	}
	if sa := c.inits[initKey{d.Remote, h.spiI}]; sa != nil {
		if sa.hs != nil && sa.hs.initR != nil && slices.Equal(sa.hs.initI, d.Data) {
			if !sa.hs.keyed {
				sa.hs.repeated()
			}
			c.reply(d, sa.hs.initR)
		}
		return
	}
	c.serveInit(h, d)
}

// initAnswer takes the responder's IKE_SA_INIT. Nothing of it is
// authenticated yet: errors are believed only if nothing better comes.
func (c *Core) initAnswer(sa *ikeSA, h header, d Datagram, list []payload, ns notifies) {
	hs := sa.hs
	if n, ok := ns.get(nCookie); ok && h.spiR == 0 {
		if hs.retries++; hs.retries <= initRetries && len(n.data) > 0 && len(n.data) <= maxCookieLen {
			hs.cookie = append([]byte(nil), n.data...)
			c.sendInit(sa)
		}
		return
	}
	if n, ok := ns.get(nInvalidKEPayload); ok {
		c.otherGroup(sa, n)
		return
	}
	if n, ok := ns.failure(); ok {
		why := RefusedByPeer
		ev := Event{Theirs: notifyName(n.kind), Detail: sa.reasonThere()}
		if n.kind == nNoProposalChosen {
			why, ev.Ours, ev.Setting = NoProposal, proposalText(hs.offer), "proposals"
			ev.Detail = "or the peer takes no calls from here; " + ev.Detail // which is answered in the same way
		}
		ev.Failure = why
		c.doom(sa, ev)
		return
	}
	sap, ok := find(list, plSA)
	kep, ok2 := find(list, plKE)
	nr, err := parseNonce(list)
	if !ok || !ok2 || err != nil || h.spiR == 0 {
		c.stats.Dropped++
		return
	}
	props, err := parseSA(sap.body)
	group, public, err2 := parseKE(kep.body)
	if err != nil || err2 != nil || len(props) != 1 {
		c.stats.Dropped++
		return
	}
	s, ok := accepts(hs.offer, props[0], negotiation{})
	if !ok || s.ke != group || group != hs.kex.method() {
		c.stats.Dropped++
		return
	}
	if _, _, more := s.nextAddKE(0); more && !ns.has(nIntermediate) {
		c.stats.Dropped++
		return
	}
	if sa.peer.FullTranscript == TranscriptRequired && !ns.has(nFullTranscript) {
		c.doom(sa, noTranscript("the peer").event())
		return
	}
	kex, next := hs.kex, func(r secret) {
		defer wipe(r.shared)
		if r.err != nil {
			c.stats.Dropped++
			return
		}
		c.initAgreed(sa, h, d, list, ns, s, nr, r.shared)
	}
	work(c, sa, false, len(d.Data), func() (r secret) { r.shared, r.err = kex.shared(public); return r }, next)
}

// doom ends a call that has got an answer of no use, if nothing better comes:
// nobody has authenticated it.
func (c *Core) doom(sa *ikeSA, ev Event) {
	if hs := sa.hs; hs.doom.Failure == NoFailure {
		hs.doom = ev
		sa.expireAt = c.now.Add(doomGrace)
	}
}

// initAgreed goes on as initiator with the shared secret of IKE_SA_INIT.
func (c *Core) initAgreed(sa *ikeSA, h header, d Datagram, list []payload, ns notifies, s suite, nr, shared []byte) {
	hs := sa.hs
	sa.spiR, sa.suite, sa.req = h.spiR, s, nil
	hs.told, hs.unreachable = false, "" // it has answered, on this port
	hs.nr, hs.initR = slices.Clone(nr), slices.Clone(d.Data)
	sa.state = stHalfOpen
	sa.expireAt = c.now.Add(max(c.cfg.Limits.HalfOpenTime*4, 2*c.schedule(sa).patience()))
	hs.hashes, hs.childless, hs.askedRaw = parseHashes(ns), ns.has(nChildless), asksRaw(list)
	hs.ppk = len(sa.peer.PPKs) > 0 && ns.has(nUsePPK)
	hs.full = hs.saidFull && ns.has(nFullTranscript)
	sa.transcript = hs.full
	sa.fragment = sa.peer.Fragments == On && ns.has(nFragmentation)
	sa.learnNAT(ns)
	sa.prefersUDP = sa.peerNATT && sa.peer.PreferEncap && saysPrefersUDP(list)
	sa.nextOut = 1
	if !c.keySA(sa, seedInit(s.prf, hs.ni, hs.nr, shared)) {
		return
	}
	// RFC 7296 section 2.23: with a NAT in the way, and with MOBIKE in any
	// case (RFC 4555 section 3.3), everything moves to the NAT port.
	if sa.peerNATT && (sa.encap() || sa.peer.MOBIKE == On) && sa.remote.Port() != c.cfg.NATPort {
		sa.local = netip.AddrPortFrom(sa.local.Addr(), c.cfg.NATPort)
		sa.remote = netip.AddrPortFrom(sa.remote.Addr(), natPort(sa.remote.Port()))
	}
	c.nextHandshake(sa)
}

// natPort maps the peer's port 500 to 4500 and leaves others as configured.
func natPort(p uint16) uint16 {
	if p == 500 {
		return 4500
	}
	return p
}

// otherGroup is RFC 7296 section 1.2: INVALID_KE_PAYLOAD names the group that
// the responder wants; it must be one we offered.
func (c *Core) otherGroup(sa *ikeSA, n notify) {
	hs := sa.hs
	if len(n.data) != 2 {
		return
	}
	g := binary.BigEndian.Uint16(n.data)
	offered := slices.ContainsFunc(hs.offer, func(p Proposal) bool {
		return slices.Contains(p.Transforms, Transform{Type: TransformKE, ID: g})
	})
	if hs.retries++; !offered || g == hs.kex.method() || hs.retries > initRetries {
		c.stats.Dropped++
		return
	}
	kex, err := c.kex.start(g)
	if err != nil {
		c.stats.Dropped++
		return
	}
	hs.kex = kex
	c.sendInit(sa)
}

// keySA sets the keys of an IKE SA.
func (c *Core) keySA(sa *ikeSA, seed []byte) bool {
	old := sa.keys
	sa.keys = deriveIKE(&sa.suite, seed, sa.hs.ni, sa.hs.nr, sa.spiI, sa.spiR)
	wipe(seed)
	old.wipe()
	sa.hs.keyed = true
	return c.startSealers(sa)
}

func (c *Core) startSealers(sa *ikeSA) bool {
	i, err := newSealer(&sa.suite, sa.keys.ei, sa.keys.ai, c.cfg.Rand)
	r, err2 := newSealer(&sa.suite, sa.keys.er, sa.keys.ar, c.cfg.Rand)
	if err != nil || err2 != nil {
		c.fail(sa, Event{Failure: InternalFailure, Detail: "cipher keys"})
		c.destroy(sa, true)
		return false
	}
	sa.out, sa.in = i, r
	if !sa.initiator {
		sa.out, sa.in = r, i
	}
	if c.cfg.KeyLog != nil {
		c.cfg.KeyLog(keyRow(sa))
	}
	return true
}
