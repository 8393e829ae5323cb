package ike

import (
	"cmp"
	"crypto"
	"crypto/hmac"
	"crypto/x509"
	"errors"
	"slices"
	"time"
)

// This file is EAP at the responder, RFC 7296 section 2.16: we prove ourselves
// by our certificate, the caller proves itself by an EAP method, and the key
// that the method gives to both sides makes the AUTH payloads of both.
//
//	IDi, SA, TSi, TSr      -->
//	                       <--  IDr, CERT, AUTH, EAP (request)
//	EAP (response)         -->       ... as often as the method asks
//	                       <--  EAP (success)
//	AUTH                   -->
//	                       <--  AUTH, SA, TSi, TSr

// EAP is one run of an EAP method, as the authenticator (RFC 3748). Next takes
// a packet of the peer, nil the first time, and gives the answer; it may
// compute, and never waits for anybody. Close ends the run, may be called more
// than once, and gives the reason if the method has failed without having said
// so yet.
type EAP interface {
	Next(in []byte) EAPStep
	Close() error
}

// EAPStep is what an EAP method answers. MSK, at least 64 bytes, comes with EAP
// Success and a peer that EAPCall.Verify has taken; Err, an *EAPError, with EAP
// Failure.
type EAPStep struct {
	Out []byte
	MSK []byte
	Err error
}

// EAPCall is what an EAP method is begun with.
type EAPCall struct {
	// Key and Certificates, leaf first, are ours; CAs are those that the
	// caller's certificate may be of.
	Key          crypto.Signer
	Certificates []*x509.Certificate
	CAs          []*x509.Certificate
	// AskIdentity asks for the EAP identity first: IDi does not name anybody.
	AskIdentity bool
	// Verify says whether a chain of certificates, leaf first, is one of the
	// policy's. identity is what the caller has answered to AskIdentity. The
	// method calls it within Next, once.
	Verify func(identity string, chain [][]byte) error
	Now    time.Time
}

// EAPError says why an EAP method has failed.
type EAPError struct {
	Failure                       Failure
	Peer, Theirs, Detail, Setting string
}

// Error gives the detail.
func (e *EAPError) Error() string { return e.Detail }

// eapPatience is how many times longer than others an IKE SA with EAP may take
// in all: a person may have to say that the key may be used. For each message it
// may take as long as others.
const eapPatience = 4

// eapRun is an IKE SA between its first IKE_AUTH and the end of EAP.
type eapRun struct {
	method EAP
	idi    Identity // what AUTH covers; claimed, never proved
	first  *opened  // asks for the child
	notes  notifies
	peers  []*Peer // who it may be, the nearest first
	named  bool    // idi is a name that the policy has: the certificate must have it too
	until  time.Time
	now    time.Time // of the message that the method looks at

	peer *Peer    // proved
	id   Identity // proved
	// proofEnds is when the certificate ends that has proved it.
	proofEnds time.Time
	msk       []byte // after EAP Success
}

// close ends a run for good.
func (e *eapRun) close(c *Core, sa *ikeSA) {
	c.guard.leaveEAP(sa)
	if e.method != nil && !sa.job.given() { // else stepped.discard does it
		_ = e.method.Close() // whoever wants the reason has asked before
	}
	wipe(e.msk)
}

// silence says how a run ended whose peer says nothing any more.
func (e *eapRun) silence() Event {
	if err := e.method.Close(); err != nil {
		return eapEvent(err)
	}
	return Event{Failure: NoAnswer, Detail: "the initiator went silent in the middle of EAP"}
}

func eapEvent(err error) Event {
	var e *EAPError
	if !errors.As(err, &e) {
		e = &EAPError{Failure: InternalFailure, Detail: err.Error()}
	}
	return Event{Failure: e.Failure, Peer: e.Peer, Theirs: e.Theirs, Detail: e.Detail, Setting: e.Setting}
}

// beginEAP answers an IKE_AUTH without AUTH: the peer wants EAP.
func (c *Core) beginEAP(sa *ikeSA, m *opened, ns notifies, d Datagram, want Identity) {
	e := &eapRun{idi: sa.remoteID, first: m, notes: ns}
	fail := c.eapPeers(sa, e, want)
	if fail == nil {
		old, ok := c.guard.enterEAP(sa, &c.cfg.Limits, c.now)
		if old != nil {
			c.giveWay(old)
		}
		if ok {
			sa.hs.eap = e
		} else {
			fail = authFail(TooMany, "", "%d callers are in the middle of EAP, %d of them at this address", c.guard.eap, c.guard.eapPerAddr[sa.counted])
		}
	}
	if fail != nil {
		c.refuse(sa, m, d, nAuthFailed, Event{Failure: fail.why, Detail: fail.text, Setting: fail.setting, Peer: fail.peer, Theirs: "EAP"})
		return
	}
	p, hs := e.peers[0], sa.hs
	sa.localID = p.ownID(sa)
	octets, suite, hashes, kex := hs.authContext(sa.suite.prf, m.id).octets(false, sa.keys.pr, sa.localID), sa.suite.prf, hs.hashes, c.kex
	run := func() (r signed) {
		r.method, r.data, r.err = p.makeAuth(suite, octets, hashes, kex)
		return r
	}
	work(c, sa, false, len(m.plain), run, func(r signed) { c.startEAP(sa, m, d, r) })
}

// startEAP proves us, and begins with the method.
func (c *Core) startEAP(sa *ikeSA, m *opened, d Datagram, own signed) {
	e := sa.hs.eap
	p := e.peers[0]
	if own.err != nil {
		c.refuse(sa, m, d, nAuthFailed, Event{Failure: InternalFailure, Detail: own.err.Error(), Peer: p.Name})
		return
	}
	call := EAPCall{Key: p.Key, Certificates: p.Certificates, AskIdentity: !e.named, Now: c.now,
		Verify: func(identity string, chain [][]byte) error { return e.verify(identity, chain, e.now) }}
	for _, q := range e.peers {
		call.CAs = append(call.CAs, q.CAs...)
	}
	e.method = c.cfg.EAP(call)
	e.until = c.now.Add(eapPatience * c.cfg.Limits.HalfOpenTime)
	c.awaitEAP(sa)
	list := append([]payload{{kind: plIDr, body: sa.localID.body()}}, p.ownCerts(false)...)
	c.stepEAP(sa, m, d, append(list, authPayload(own.method, own.data)), e.method.Next(nil))
}

// eapPeers finds the peers that a caller who wants EAP may be. They call
// themselves the same, because one of them has to speak before it is known
// which of them it is.
func (c *Core) eapPeers(sa *ikeSA, e *eapRun, want Identity) (fail *authError) {
	fail = authFail(WrongMethod, "remote_auth", "the peer wants EAP, and no ike block for calls from %s has it", sa.remote.Addr())
	for _, p := range c.peers.callers(sa.local.Addr(), sa.remote.Addr()) {
		if !p.EAP {
			continue
		}
		if bad := p.suits(sa, want); bad != nil {
			fail = bad
			continue
		}
		e.peers = append(e.peers, p)
	}
	if len(e.peers) == 0 {
		return fail
	}
	named := func(p *Peer) bool {
		return sa.remoteID.isName() && p.RemoteID != "" && p.RemoteID != "*" && sa.remoteID.matches(p.RemoteID)
	}
	slices.SortStableFunc(e.peers, func(a, b *Peer) int { return cmp.Compare(btoi(!named(a)), btoi(!named(b))) })
	e.named = named(e.peers[0])
	own := e.peers[0].ownID(sa)
	e.peers = slices.DeleteFunc(e.peers, func(p *Peer) bool { return e.named && !named(p) || !own.same(p.ownID(sa)) })
	e.peers = e.peers[:min(len(e.peers), maxCandidates)]
	return nil
}

// verify finds the peer that a certificate proves somebody to be. Who the
// caller is comes from the certificate; what it calls itself only says which
// name of it counts.
func (e *eapRun) verify(identity string, chain [][]byte, now time.Time) error {
	if len(chain) == 0 {
		return &EAPError{Failure: BadCertificate, Detail: "the peer sent no certificate", Setting: "ca"}
	}
	var claims []Identity
	if id, err := ParseIdentity(identity); err == nil {
		claims = append(claims, id)
	}
	if e.named {
		claims = []Identity{e.idi}
	}
	var fail *EAPError
	w := readShown(chain)
	for _, p := range e.peers {
		err, until := w.err, time.Time{}
		if err == nil {
			until, err = p.verifyChain(w, now, x509.ExtKeyUsageClientAuth) // RFC 5216 section 5.3
		}
		if err == nil {
			err = checkKey(w.leaf().PublicKey)
		}
		if err != nil {
			fail = &EAPError{Failure: BadCertificate, Detail: "certificate of the peer: " + err.Error(), Setting: "ca", Peer: p.Name}
			continue
		}
		leaf := w.leaf()
		names := append(slices.DeleteFunc(slices.Clone(claims), func(id Identity) bool { return !id.inCertificate(leaf) }), namesIn(leaf)...)
		if e.named && !e.idi.inCertificate(leaf) {
			names = nil
		}
		if i := slices.IndexFunc(names, func(id Identity) bool { return id.matches(p.RemoteID) }); i >= 0 {
			e.peer, e.id, e.proofEnds = p, names[i], until
			return nil
		}
		fail = &EAPError{Failure: BadCertificate, Peer: p.Name, Setting: "remote_id",
			Detail: "the certificate does not speak for " + or(p.RemoteID, "anybody") + ", but for " + identitiesOf(leaf)}
		if e.named {
			fail.Detail = "the certificate does not speak for " + e.idi.String() + ", but for " + identitiesOf(leaf)
		}
	}
	return fail
}

// awaitEAP says how long the peer's next message may take.
func (c *Core) awaitEAP(sa *ikeSA) {
	sa.expireAt = sooner(c.now.Add(c.cfg.Limits.HalfOpenTime), sa.hs.eap.until)
}

// serveEAP is an IKE_AUTH after the first.
func (c *Core) serveEAP(sa *ikeSA, m *opened, ns notifies, d Datagram) {
	e := sa.hs.eap
	kind := uint8(plEAP)
	if e.msk != nil {
		kind = plAUTH
	}
	p, ok := find(m.payloads, kind)
	switch {
	case !ok:
		c.refuse(sa, m, d, nInvalidSyntax, Event{Failure: Malformed, Detail: "IKE_AUTH in the middle of EAP without what is due"})
	case e.msk == nil:
		e.now = c.now
		work(c, sa, false, len(m.plain), func() stepped { return stepped{e, e.method.Next(p.body)} }, func(r stepped) {
			c.stepEAP(sa, m, d, nil, r.EAPStep)
		})
	default:
		c.endEAP(sa, m, p, append(e.notes, ns...), d)
	}
}

// stepped is a step of the method.
type stepped struct {
	e *eapRun
	EAPStep
}

func (r stepped) discard() {
	wipe(r.MSK)
	_ = r.e.method.Close()
}

// stepEAP sends what the method answers.
func (c *Core) stepEAP(sa *ikeSA, m *opened, d Datagram, list []payload, step EAPStep) {
	e := sa.hs.eap
	if step.Err == nil && step.MSK != nil && (e.peer == nil || len(step.MSK) < minMSK) {
		step = EAPStep{Err: errors.New("EAP ended without a proof of who the peer is, or without a key")}
	}
	if len(step.Out) > 0 {
		list = append(list, payload{kind: plEAP, body: step.Out})
	} else {
		list = append(list, note(nAuthFailed))
	}
	c.respond(sa, m, d, list)
	if sa.state == stDead {
		return
	}
	if step.Err != nil {
		c.fail(sa, eapEvent(step.Err))
		c.destroy(sa, true)
		return
	}
	e.msk = slices.Clone(step.MSK)
	c.awaitEAP(sa)
}

// endEAP takes the AUTH payload that the method's key makes, which shows that
// both ends of EAP are those of this IKE SA.
func (c *Core) endEAP(sa *ikeSA, m *opened, authp payload, ns notifies, d Datagram) {
	e, ctx := sa.hs.eap, sa.hs.authContext(sa.suite.prf, sa.hs.eap.first.id)
	method, data, err := parseAuth(authp.body)
	var fail Event
	switch {
	case err != nil:
		fail = Event{Failure: Malformed, Detail: err.Error()}
	case method != authPSK || !hmac.Equal(pskAuth(sa.suite.prf, e.msk, ctx.octets(true, sa.keys.pi, e.idi)), data):
		fail = Event{Failure: WrongKey, Detail: "AUTH is not made with the key of the EAP method", Peer: e.peer.Name}
	case !c.peers.has(e.peer):
		fail = Event{Failure: UnknownPeer, Detail: "the policy has changed in the middle of EAP", Peer: e.peer.Name}
	default:
		sa.peer, sa.remoteID, sa.proofEnds = e.peer, e.id, e.proofEnds
		auth := authPayload(authPSK, pskAuth(sa.suite.prf, e.msk, ctx.octets(false, sa.keys.pr, sa.localID)))
		c.admit(sa, m, e.first, ns, d, []payload{auth})
		return
	}
	c.refuse(sa, m, d, nAuthFailed, fail)
}

// breakEAP is an INFORMATIONAL request in the middle: the peer does not take our
// AUTH, or gives up when TLS has told it that we do.
func (c *Core) breakEAP(sa *ikeSA, m *opened, ns notifies, d Datagram) {
	ev := Event{Failure: WrongKeyByPeer, Detail: "the peer broke off EAP", Setting: "local_id, certificate"}
	if n, ok := ns.failure(); ok {
		ev.Theirs = notifyName(n.kind)
	}
	if err := sa.hs.eap.method.Close(); err != nil {
		ev = eapEvent(err)
	}
	c.respond(sa, m, d, nil)
	c.fail(sa, ev)
	c.destroy(sa, true)
}

// minMSK is how long a method's key is at least, in bytes (RFC 3748 section
// 7.10).
const minMSK = 64

// abandonEAP ends what runs, because the Core is not used any more.
func (c *Core) abandonEAP() {
	for _, sa := range c.sas {
		c.leaveHandshake(sa)
		c.dropJob(sa)
	}
}
