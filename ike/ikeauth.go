package ike

import (
	"bytes"
	"slices"
	"strings"
)

// authTask is IKE_AUTH as initiator, RFC 7296 section 1.2.
type authTask struct {
	plain ikeKeys // SK_d, SK_pi, SK_pr without the PPK (RFC 8784), until the peer has answered
	mixed bool
	mid   uint32
}

func (hs *handshake) authContext(prf uint16, mid uint32) *authContext {
	return &authContext{prf: prf, initI: hs.initI, initR: hs.initR, ni: hs.ni, nr: hs.nr,
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
	sa.localID = p.ownID(sa)
	list := []payload{{kind: plIDi, body: sa.localID.body()}}
	list = append(list, p.ownCerts(hs.askedRaw)...)
	list = append(list, certRequests(p)...)
	if id, err := ParseIdentity(p.RemoteID); err == nil && id.matches(p.RemoteID) && !hasWildcard(p.RemoteID) {
		list = append(list, payload{kind: plIDr, body: id.body()})
	}
	if !c.inContact(sa) {
		list = append(list, note(nInitialContact))
	}
	ctx := hs.authContext(sa.suite.prf, t.mid)
	if ppk := p.PPKs[p.PPKID]; hs.ppk && len(ppk) > 0 {
		t.plain, t.mixed = ikeKeys{d: bytes.Clone(sa.keys.d), pi: bytes.Clone(sa.keys.pi), pr: bytes.Clone(sa.keys.pr)}, true
		list = append(list, note(nPPKIdentity, append([]byte{ppkFixed}, p.PPKID...)...))
		if !p.PPKRequired {
			_, data, err := p.makeAuth(sa.suite.prf, ctx.octets(true, sa.keys.pi, sa.localID), hs.hashes, c.kex)
			if err != nil {
				return give(InternalFailure, err.Error())
			}
			list = append(list, note(nNoPPKAuth, data...))
		}
		mixPPK(sa.suite.prf, &sa.keys, ppk)
	} else if p.PPKRequired {
		return give(NoPPK, "the peer does not know post-quantum pre-shared keys (RFC 8784)")
	}
	method, data, err := p.makeAuth(sa.suite.prf, ctx.octets(true, sa.keys.pi, sa.localID), hs.hashes, c.kex)
	if err != nil {
		return give(InternalFailure, err.Error())
	}
	list = append(list, authPayload(method, data))
	if p.MOBIKE == On && sa.peerNATT {
		list = append(list, note(nMobikeSupported))
	}
	if len(hs.want) > 0 && !(p.Childless && hs.childless) {
		if hs.child, err = c.offerChild(sa, hs.want[0], true); err == errNoTraffic {
			return give(NoSelectors, err.Error())
		} else if err != nil {
			return give(BadRandomness, err.Error())
		}
		list = append(list, configRequest(p)...)
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
	if fail := p.verifyPeer(cl, sa.suite.prf, c.now); fail != nil {
		sa.remoteID = id
		c.farewell(sa, Event{Failure: fail.why, Detail: fail.text, Setting: fail.setting})
		return
	}
	sa.remoteID, _ = cl.fits(p)
	sa.mobike = p.MOBIKE == On && ns.has(nMobikeSupported)
	c.takeConfig(sa, m)
	offer, want := hs.child, hs.want
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
	default:
		n, ev := c.acceptChild(sa, offer, m.payloads, ns, negotiation{noKE: true})
		if n != nil {
			toR, toI := childKeys(sa.suite.prf, sa.keys.d, &n.suite, nil, ni, nr)
			c.besides(sa, c.addChild(sa, n, toI, toR, true, nil, origin{true, low}), offer.packet)
			c.supersede(sa)
		} else if ns.has(nInvalidSyntax) { // it ends all (RFC 7296 section 2.21.3)
			sa.queue = nil
			c.farewell(sa, ev)
			return
		} else {
			c.fail(sa, ev)
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
	if msgs, err := sealMessage(sa.header(exInformational, sa.nextOut, false), list, sa.out, 0); err == nil {
		sa.nextOut++
		c.transmit(sa, msgs)
	}
	c.fail(sa, ev)
	c.destroy(sa, true)
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
	withPPK, fail := c.findPeer(sa, cl, want, m.id, ns)
	if fail != nil {
		c.refuse(sa, m, d, nAuthFailed, Event{Failure: fail.why, Detail: fail.text, Setting: fail.setting, Peer: fail.peer})
		return
	}
	p := sa.peer
	sa.localID = p.ownID(sa)
	method, data, err := p.makeAuth(sa.suite.prf, hs.authContext(sa.suite.prf, m.id).octets(false, sa.keys.pr, sa.localID), hs.hashes, c.kex)
	if err != nil {
		c.refuse(sa, m, d, nAuthFailed, Event{Failure: InternalFailure, Detail: err.Error()})
		return
	}
	list := []payload{{kind: plIDr, body: sa.localID.body()}}
	list = append(list, p.ownCerts(asksRaw(m.payloads))...)
	list = append(list, authPayload(method, data))
	if withPPK {
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

// findPeer looks the identity up in the peer authorisation database and
// verifies it. It sets sa.peer only if the peer is who it says.
func (c *Core) findPeer(sa *ikeSA, cl *claim, want Identity, mid uint32, ns notifies) (withPPK bool, fail *authError) {
	fail = authFail(UnknownPeer, "remote_id", "no ike block is for %s calling from %s", cl.id, sa.remote.Addr())
	tried := 0
	ctx := sa.hs.authContext(sa.suite.prf, mid)
	for _, p := range c.peers.callers(sa.local.Addr(), sa.remote.Addr()) {
		id, ok := cl.fits(p)
		if !ok {
			continue
		}
		if bad := p.suits(sa, want); bad != nil {
			if bad.why != WrongIdentity || fail.why == UnknownPeer {
				fail = bad
			}
			continue
		}
		if tried++; tried > maxCandidates {
			break
		}
		keys := ikeKeys{d: bytes.Clone(sa.keys.d), pi: bytes.Clone(sa.keys.pi), pr: bytes.Clone(sa.keys.pr)}
		mixed, err := p.verifyWithPPK(sa, cl, ctx, &keys, ns, c)
		if err == nil {
			sa.peer, sa.remoteID = p, id
			sa.keys.d, keys.d = keys.d, sa.keys.d
			sa.keys.pi, keys.pi = keys.pi, sa.keys.pi
			sa.keys.pr, keys.pr = keys.pr, sa.keys.pr
			keys.wipe()
			return mixed, nil
		}
		keys.wipe()
		fail = err
		fail.peer = p.Name
	}
	return false, fail
}

// suits says what keeps a peer's own side from being the one that is called:
// IDr, and what was agreed in IKE_SA_INIT.
func (p *Peer) suits(sa *ikeSA, want Identity) (fail *authError) {
	if !want.IsZero() && !want.same(p.ownID(sa)) {
		fail = authFail(WrongIdentity, "local_id", "the peer asks for %s, we are %s", want, p.ownID(sa))
	} else if _, _, ok := choose(p.proposals(), []Proposal{sa.suite.proposal()}, negotiation{}); !ok {
		fail = authFail(NoProposal, "proposals", "the agreed %s is not what the policy has for %s", &sa.suite, sa.remoteID)
	} else {
		return nil
	}
	fail.peer = p.Name
	return fail
}

// verifyWithPPK is RFC 8784 section 3 at the responder.
func (p *Peer) verifyWithPPK(sa *ikeSA, cl *claim, ctx *authContext, keys *ikeKeys, ns notifies, c *Core) (mixed bool, fail *authError) {
	n, offered := ns.get(nPPKIdentity)
	look := *cl
	if offered && sa.hs.ppk && len(n.data) > 1 && n.data[0] == ppkFixed {
		if ppk := p.PPKs[string(n.data[1:])]; len(ppk) > 0 {
			mixPPK(sa.suite.prf, keys, ppk)
			mixed = true
		} else if no, ok := ns.get(nNoPPKAuth); ok {
			look.auth = no.data
		} else {
			return false, authFail(NoPPK, "ppk", "%s insists on a post-quantum pre-shared key that we do not have", cl.id)
		}
	}
	if !mixed && p.PPKRequired {
		return false, authFail(NoPPK, "ppk", "%s has no post-quantum pre-shared key", cl.id)
	}
	look.octets = ctx.octets(true, keys.pi, cl.id)
	return mixed, p.verifyPeer(&look, sa.suite.prf, c.now)
}
