package ike

import (
	"bytes"
	"slices"
	"strings"
	"time"
)

// authTask is IKE_AUTH as initiator, RFC 7296 section 1.2.
type authTask struct {
	plain ikeKeys // SK_d, SK_pi, SK_pr without the PPK (RFC 8784), until the peer has answered
	mixed bool
	mid   uint32
	own   *signed // our proof; nil: still to be made
}

// signed is our own AUTH as initiator.
type signed struct {
	method uint8
	data   []byte
	plain  []byte // without the PPK, if the peer may have none
	err    error
}

func (signed) discard() {}

// begin settles what AUTH is computed with.
func (t *authTask) begin(sa *ikeSA) (Failure, string) {
	p := sa.peer
	sa.localID = p.ownID(sa)
	if ppk := p.PPKs[p.PPKID]; sa.hs.ppk && len(ppk) > 0 {
		t.plain, t.mixed = sa.keys.authKeys(), true
		mixPPK(sa.suite.prf, &sa.keys, ppk)
	} else if p.PPKRequired {
		return NoPPK, "the peer does not know post-quantum pre-shared keys (RFC 8784)"
	}
	return NoFailure, ""
}

// signing makes our AUTH.
func (t *authTask) signing(c *Core, sa *ikeSA) func() signed {
	p, hashes, suite, kex := sa.peer, sa.hs.hashes, sa.suite.prf, c.kex
	ctx := sa.hs.authContext(suite, t.mid)
	octets := ctx.octets(true, sa.keys.pi, sa.localID)
	var plain []byte
	if t.mixed && !p.PPKRequired {
		plain = ctx.octets(true, t.plain.pi, sa.localID)
	}
	return func() (r signed) {
		if plain != nil {
			if _, r.plain, r.err = p.makeAuth(suite, plain, hashes, kex); r.err != nil {
				return r
			}
		}
		r.method, r.data, r.err = p.makeAuth(suite, octets, hashes, kex)
		return r
	}
}

func (hs *handshake) authContext(prf uint16, mid uint32) *authContext {
	return &authContext{prf: prf, full: hs.full, initI: hs.initI, initR: hs.initR, ni: hs.ni, nr: hs.nr,
		intI: hs.intI, intR: hs.intR, mid: mid}
}

func (t *authTask) build(c *Core, sa *ikeSA) (uint8, []payload, bool) {
	p, hs := sa.peer, sa.hs
	t.mid = sa.nextOut
	give := func(why Failure, detail string) (uint8, []payload, bool) {
		c.fail(sa, Event{Failure: why, Detail: detail})
		c.destroy(sa, true)
		return 0, nil, false
	}
	if t.own == nil {
		if why, text := t.begin(sa); why != NoFailure {
			return give(why, text)
		}
		run := t.signing(c, sa)
		if c.cfg.Jobs > 0 && p.Key != nil {
			work(c, sa, false, 0, run, func(r signed) {
				t.own = &r
				sa.enqueueFirst(t)
			})
			return 0, nil, false
		}
		r := run()
		t.own = &r
	}
	if t.own.err != nil {
		return give(InternalFailure, t.own.err.Error())
	}
	list := []payload{{kind: plIDi, body: sa.localID.body()}}
	list = append(list, p.ownCerts(hs.askedRaw)...)
	list = append(list, certRequests(p)...)
	if id, ok := p.asksFor(); ok {
		list = append(list, payload{kind: plIDr, body: id.body()})
	}
	if !c.inContact(sa) {
		list = append(list, note(nInitialContact))
	}
	if t.mixed {
		list = append(list, note(nPPKIdentity, append([]byte{ppkFixed}, p.PPKID...)...))
		if !p.PPKRequired {
			list = append(list, note(nNoPPKAuth, t.own.plain...))
		}
	}
	list = append(list, authPayload(t.own.method, t.own.data))
	if p.MOBIKE == On && sa.peerNATT {
		list = append(list, note(nMobikeSupported))
	}
	if len(hs.want) > 0 && !(p.Childless && hs.childless) {
		var err error
		if hs.child, err = c.offerChild(sa, hs.want[0], true); err == errNoTraffic {
			return give(NoSelectors, err.Error())
		} else if err != nil {
			return give(BadRandomness, err.Error())
		}
		list = append(list, configRequest(sa)...)
		list = append(list, hs.child.notes()...)
		list = append(list, hs.child.saPayload())
		list = append(list, hs.child.tsPayloads()...)
	} else if !hs.childless {
		return give(RefusedByPeer, "no child is wanted yet, and the peer cannot do without (RFC 6023)")
	}
	return exIKEAuth, list, true
}

const ppkFixed = 2 // PPK_ID_FIXED, RFC 8784 section 5.1

func hasWildcard(pattern string) bool { return pattern == "" || strings.Contains(pattern, "*") }

func (t *authTask) answer(c *Core, sa *ikeSA, m *opened, ns notifies) {
	defer t.plain.wipe()
	hs, p := sa.hs, sa.peer
	idp, ok := find(m.payloads, plIDr)
	if !ok {
		c.failAnswer(sa, m, ns, "IKE_AUTH without IDr")
		return
	}
	if t.mixed && !ns.has(nPPKIdentity) {
		if p.PPKRequired {
			c.farewell(sa, Event{Failure: NoPPK, Detail: "the peer does not have the post-quantum pre-shared key " + p.PPKID})
			return
		}
		sa.keys.d, sa.keys.pi, sa.keys.pr, t.plain = t.plain.d, t.plain.pi, t.plain.pr, ikeKeys{d: sa.keys.d, pi: sa.keys.pi, pr: sa.keys.pr}
	}
	id, err := parseID(idp.body)
	cl := &claim{id: id, certs: parseCerts(m.payloads, certX509), raw: parseCerts(m.payloads, certRawKey)}
	authp, _ := find(m.payloads, plAUTH)
	if err == nil {
		cl.method, cl.auth, err = parseAuth(authp.body)
	}
	if err != nil {
		c.farewell(sa, Event{Failure: Malformed, Detail: err.Error()})
		return
	}
	cl.octets = hs.authContext(sa.suite.prf, t.mid).octets(false, sa.keys.pr, id)
	suite, now := sa.suite.prf, c.now
	work(c, sa, cl.method == authPSK, len(m.plain), func() judgement { return judgement{p.verifyPeer(cl, suite, now)} }, func(r judgement) {
		if r.fail != nil {
			sa.remoteID = id
			c.farewell(sa, Event{Failure: r.fail.why, Detail: r.fail.text, Setting: r.fail.setting})
			return
		}
		c.accepted(sa, m, ns, cl)
	})
}

// judgement is what came of the responder's claim.
type judgement struct{ fail *authError }

func (judgement) discard() {}

// accepted goes on as initiator when the responder has proved who it is.
func (c *Core) accepted(sa *ikeSA, m *opened, ns notifies, cl *claim) {
	hs, p := sa.hs, sa.peer
	sa.remoteID, _ = cl.fits(p)
	sa.proofEnds = cl.until
	sa.hearAuthLifetime(ns, c.now)
	sa.mobike = p.MOBIKE == On && ns.has(nMobikeSupported)
	if fail := c.takeConfig(sa, m); fail.Failure != NoFailure {
		c.farewell(sa, fail)
		return
	}
	offer, want, wishes := hs.child, hs.want, hs.want
	if offer != nil {
		want = want[1:]
	}
	low, ni, nr := lowest(hs.ni, hs.nr), hs.ni, hs.nr
	c.establish(sa, low, false)
	switch {
	case offer == nil:
	case sa.state != stUp:
		// It lost against the peer's own call. The peer may have sent by
		// the child already, which is there until the Delete is answered.
		if n, _ := c.acceptChild(sa, offer, m.payloads, ns, negotiation{noKE: true}); n != nil {
			toR, toI := childKeys(sa.suite.prf, sa.keys.d, &n.suite, nil, ni, nr)
			c.addSurplus(sa, n, toI, toR, origin{true, low})
		}
		c.handOver(sa, wishes)
		want = nil
	default:
		n, ev := c.acceptChild(sa, offer, m.payloads, ns, negotiation{noKE: true})
		if n != nil {
			toR, toI := childKeys(sa.suite.prf, sa.keys.d, &n.suite, nil, ni, nr)
			c.besides(sa, c.addChild(sa, n, toI, toR, true, nil, origin{true, low}), offer.packet)
			c.supersede(sa)
			break
		}
		// INVALID_SYNTAX ends all (RFC 7296 section 2.21.3).
		if c.refusedInAuth(sa, offer.wish, want, ev, ns.has(nInvalidSyntax)); sa.state == stDead {
			return
		}
	}
	for _, w := range want {
		sa.enqueue(&createTask{wish: w})
	}
}

func lowest(a, b []byte) []byte {
	if bytes.Compare(b, a) < 0 {
		a = b
	}
	return slices.Clone(a)
}

// farewell ends an IKE SA whose peer may believe it is up: it is told once
// (RFC 7296 section 2.21.2).
func (c *Core) farewell(sa *ikeSA, ev Event) {
	list := []payload{deletePayload(ProtoIKE)}
	switch ev.Failure {
	case WrongIdentity, WrongKey, BadCertificate, UnknownPeer, WrongMethod, NoPPK:
		list = append([]payload{note(nAuthFailed)}, list...)
	}
	c.sayDelete(sa, list...)
	c.fail(sa, ev)
	c.destroy(sa, true)
}

// sayDelete tells the peer once, without waiting for its answer.
func (c *Core) sayDelete(sa *ikeSA, list ...payload) {
	if msgs, err := sealMessage(sa.header(exInformational, sa.nextOut, false), list, sa.out, 0); err == nil {
		sa.nextOut++
		c.transmit(sa, msgs)
	}
}

// serveAuth is IKE_AUTH as responder.
func (c *Core) serveAuth(sa *ikeSA, m *opened, ns notifies, d Datagram) {
	c.follow(sa, d)
	hs := sa.hs
	if hs.eap != nil {
		c.serveEAP(sa, m, ns, d)
		return
	}
	idp, ok := find(m.payloads, plIDi)
	id, err := parseID(idp.body)
	if _, _, more := sa.suite.nextAddKE(hs.slot); !ok || err != nil || more {
		c.refuse(sa, m, d, nInvalidSyntax, Event{Failure: Malformed, Detail: "IKE_AUTH without IDi, or before the key exchanges that were agreed"})
		return
	}
	sa.remoteID = id
	var want Identity
	if idr, ok := find(m.payloads, plIDr); ok {
		want, _ = parseID(idr.body)
	}
	authp, ok := find(m.payloads, plAUTH)
	if !ok {
		c.beginEAP(sa, m, ns, d, want)
		return
	}
	cl := &claim{id: id, certs: parseCerts(m.payloads, certX509), raw: parseCerts(m.payloads, certRawKey)}
	if cl.method, cl.auth, err = parseAuth(authp.body); err != nil {
		c.refuse(sa, m, d, nInvalidSyntax, Event{Failure: Malformed, Detail: err.Error()})
		return
	}
	list, fail := c.candidates(sa, cl, want)
	if len(list) == 0 {
		c.refuse(sa, m, d, nAuthFailed, Event{Failure: fail.why, Detail: fail.text, Setting: fail.setting, Peer: fail.peer})
		return
	}
	trial := c.newTrial(sa, cl, list, m.id, ns)
	work(c, sa, trial.cheap(), len(m.plain), trial.run, func(r proof) { c.judged(sa, m, ns, d, r) })
	if sa.job != nil {
		sa.job.cancel = trial.keys.wipe
	}
}

// judged answers IKE_AUTH when it is known who the peer is.
func (c *Core) judged(sa *ikeSA, m *opened, ns notifies, d Datagram, r proof) {
	defer func() { r.discard() }() // what has not gone into the IKE SA
	if r.fail == nil && !c.peers.has(r.peer) {
		r.fail = authFail(UnknownPeer, "", "the policy has changed in the middle of IKE_AUTH")
		r.fail.peer = r.peer.Name
	}
	if f := r.fail; f != nil {
		c.refuse(sa, m, d, nAuthFailed, Event{Failure: f.why, Detail: f.text, Setting: f.setting, Peer: f.peer})
		return
	}
	p := r.peer
	sa.peer, sa.remoteID, sa.localID, sa.proofEnds = p, r.id, r.own, r.until
	sa.keys.d, r.keys.d = r.keys.d, sa.keys.d
	sa.keys.pi, r.keys.pi = r.keys.pi, sa.keys.pi
	sa.keys.pr, r.keys.pr = r.keys.pr, sa.keys.pr
	if r.err != nil {
		c.refuse(sa, m, d, nAuthFailed, Event{Failure: InternalFailure, Detail: r.err.Error()})
		return
	}
	list := []payload{{kind: plIDr, body: sa.localID.body()}}
	list = append(list, p.ownCerts(asksRaw(m.payloads))...)
	list = append(list, authPayload(r.method, r.data))
	if r.withPPK {
		list = append(list, note(nPPKIdentity))
	}
	c.admit(sa, m, m, ns, d, list)
}

// admit ends IKE_AUTH with a peer that has proved who it is. list is our own
// proof; asked is the message that asks for the child.
func (c *Core) admit(sa *ikeSA, m, asked *opened, ns notifies, d Datagram, list []payload) {
	p, hs := sa.peer, sa.hs
	if sa.local.Port() == c.cfg.Port && c.cfg.Port != c.cfg.NATPort {
		// An initiator that knows of a NAT moves to port 4500, the one for
		// ESP in UDP (RFC 7296 section 2.23). This one knows of none: OpenIKED
		// for one does not always know its own address as it calls.
		sa.natHere, sa.natPeer, sa.prefersUDP = false, false, false
	}
	if p.ForceEncap {
		sa.natHere = true
	}
	sa.mobike = p.MOBIKE == On && ns.has(nMobikeSupported) && sa.peerNATT
	if sa.mobike {
		list = append(list, note(nMobikeSupported))
	}
	ni, nr := hs.ni, hs.nr
	c.establish(sa, lowest(ni, nr), ns.has(nInitialContact))
	if sa.mobike && sa.unshown() && sa.state == stUp {
		sa.askThere()
	}
	var n *negotiated
	var ev Event
	if _, child := find(asked.payloads, plSA); child {
		cp, fail := c.serveConfig(sa, asked)
		reply := []payload{note(nInternalAddrFailure)}
		if ev = fail; fail.Failure == NoFailure {
			n, reply, ev = c.serveChild(sa, asked.payloads, ns, negotiation{noKE: true}, nil)
		}
		list = append(append(list, cp...), reply...)
	}
	c.respond(sa, m, d, list)
	switch {
	case sa.state == stDead:
		if n != nil {
			c.release(n.spiIn)
		}
	case slices.ContainsFunc(list, isInvalidSyntax): // for the peer that was all
		c.fail(sa, ev)
		c.destroy(sa, true)
	case n != nil:
		toR, toI := childKeys(sa.suite.prf, sa.keys.d, &n.suite, nil, ni, nr)
		c.addChild(sa, n, toR, toI, true, nil, origin{false, lowest(ni, nr)})
	case ev.Failure != NoFailure:
		c.fail(sa, ev)
	}
}

// maxCandidates bounds how many peers' keys one IKE_AUTH is checked against.
const maxCandidates = 16

// candidate is an ike block that a claim may be for.
type candidate struct {
	peer *Peer
	id   Identity // by which it fits
	own  Identity // what we are called there
}

// candidates looks the identity up in the peer authorisation database. fail
// says why there is none.
func (c *Core) candidates(sa *ikeSA, cl *claim, want Identity) (list []candidate, fail *authError) {
	fail = authFail(UnknownPeer, "remote_id", "no ike block is for %s calling from %s", cl.id, sa.remote.Addr())
	for _, p := range c.peers.callers(sa.local.Addr(), sa.remote.Addr()) {
		id, ok := cl.fits(p)
		if !ok || sa.unshown() && !p.mayCallFrom(sa.shown) {
			continue
		}
		if bad := p.suits(sa, want); bad != nil {
			if bad.why != WrongIdentity || fail.why == UnknownPeer {
				fail = bad
			}
			continue
		}
		if list = append(list, candidate{p, id, p.ownID(sa)}); len(list) == maxCandidates {
			break
		}
	}
	return list, fail
}

// trial is what a job needs to find out who a peer is, and to answer it. It has
// copies of what the Core may change or wipe meanwhile.
type trial struct {
	claim  *claim
	list   []candidate
	ctx    authContext
	keys   ikeKeys // d, pi and pr
	notes  notifies
	ppk    bool
	hashes []uint16
	kex    kexSource
	now    time.Time
}

func (c *Core) newTrial(sa *ikeSA, cl *claim, list []candidate, mid uint32, ns notifies) *trial {
	return &trial{cl, list, sa.hs.authContext(sa.suite.prf, mid).clone(), sa.keys.authKeys(), ns, sa.hs.ppk, sa.hs.hashes, c.kex, c.now}
}

// cheap says that no public key has to do with it.
func (t *trial) cheap() bool {
	return t.claim.method == authPSK && !slices.ContainsFunc(t.list, func(x candidate) bool { return x.peer.Key != nil })
}

// proof is who a peer is, and our own AUTH for it.
type proof struct {
	candidate
	withPPK bool
	keys    ikeKeys // d, pi and pr, with the PPK if there is one
	fail    *authError
	until   time.Time // when it ends; zero: never
	method  uint8     // of our AUTH
	data    []byte
	err     error
}

func (r proof) discard() { r.keys.wipe() }

// run verifies the claim, and gives a peer only if it is who it says.
func (t *trial) run() (r proof) {
	defer t.keys.wipe()
	for _, x := range t.list {
		keys := t.keys.authKeys()
		mixed, fail := t.verify(x.peer, &keys)
		if fail == nil {
			r = proof{candidate: x, withPPK: mixed, keys: keys, until: t.claim.until}
			r.method, r.data, r.err = x.peer.makeAuth(t.ctx.prf, t.ctx.octets(false, keys.pr, x.own), t.hashes, t.kex)
			return r
		}
		keys.wipe()
		r.fail = fail
		r.fail.peer = x.peer.Name
	}
	return r
}

// suits says what keeps a peer's own side from being the one that is called:
// IDr, and what was agreed in IKE_SA_INIT.
func (p *Peer) suits(sa *ikeSA, want Identity) (fail *authError) {
	if !want.IsZero() && !want.same(p.ownID(sa)) {
		fail = authFail(WrongIdentity, "local_id", "the peer asks for %s, we are %s", want, p.ownID(sa))
	} else if _, _, ok := choose(p.proposals(), []Proposal{sa.suite.proposal()}, negotiation{}); !ok {
		fail = authFail(NoProposal, "proposals", "the agreed %s is not what the policy has for %s", &sa.suite, sa.remoteID)
	} else if p.FullTranscript == TranscriptRequired && !sa.hs.full {
		fail = noTranscript(sa.remoteID.String())
	} else {
		return nil
	}
	fail.peer = p.Name
	return fail
}

// verify checks a claim against one peer; with a PPK it is RFC 8784 section 3 at
// the responder.
func (t *trial) verify(p *Peer, keys *ikeKeys) (mixed bool, fail *authError) {
	n, offered := t.notes.get(nPPKIdentity)
	look := *t.claim
	if offered && t.ppk && len(n.data) > 1 && n.data[0] == ppkFixed {
		if ppk := p.PPKs[string(n.data[1:])]; len(ppk) > 0 {
			mixPPK(t.ctx.prf, keys, ppk)
			mixed = true
		} else if no, ok := t.notes.get(nNoPPKAuth); ok {
			look.auth = no.data
		} else {
			return false, authFail(NoPPK, "ppk", "%s insists on a post-quantum pre-shared key that we do not have", look.id)
		}
	}
	if !mixed && p.PPKRequired {
		return false, authFail(NoPPK, "ppk", "%s has no post-quantum pre-shared key", look.id)
	}
	look.octets = t.ctx.octets(true, keys.pi, look.id)
	fail = p.verifyPeer(&look, t.ctx.prf, t.now)
	t.claim.until = look.until
	t.claim.shown = look.shown
	return mixed, fail
}
