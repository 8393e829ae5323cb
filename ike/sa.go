package ike

import (
	"container/list"
	"crypto/sha256"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"
)

// state is where an IKE SA stands.
type state uint8

const (
	stInitSent state = iota // initiator: IKE_SA_INIT is out
	stHalfOpen              // either side: keys, but nobody has authenticated
	stUp
	stReplaced // rekeyed; to be deleted by whoever rekeyed it
	stDeleting // our Delete is under way
	stDead
)

// ikeSA is one IKE SA.
type ikeSA struct {
	id        uint64
	initiator bool // of this IKE SA: of IKE_SA_INIT, or of the rekey that made it
	state     state
	spiI      uint64
	spiR      uint64
	peer      *Peer // nil at the responder until IKE_AUTH
	local     netip.AddrPort
	remote    netip.AddrPort
	shown     netip.Addr // where the peer has shown that it hears us
	remoteID  Identity
	localID   Identity

	suite   suite
	keys    ikeKeys
	in, out *sealer
	low     []byte // the lower nonce of the IKE_SA_INIT it goes back to; see onePerPeer

	hs  *handshake // until stUp
	job *job       // public-key work that is under way

	// The window of RFC 7296 section 2.3 is one request each way.
	nextOut   uint32
	req       *request
	queue     []queued
	nextIn    uint32
	lastHash  [32]byte
	lastReply [][]byte
	strays    int // times that lastReply went to where the peer was not known to be
	inFrag    reassembly
	outFrag   reassembly

	// What the two sides agreed on.
	fragment         bool
	mobike           bool
	peerNATT         bool   // the peer sent NAT detection payloads
	natHere, natPeer bool   // who is behind a NAT
	prefersUDP       bool   // both ends said so
	transcript       bool   // both IKE_SA_INIT messages went into both AUTH payloads
	mapping          []byte // the hash of what the peer last saw as our address

	children []*child
	lingers  *int           // how many more linger; shared with what it is rekeyed to
	rekeyIn  *rekeyIn       // a rekey by the peer that collides with ours
	pending  *pendingCreate // a CREATE_CHILD_SA by the peer that wants IKE_FOLLOWUP_KE
	next     *ikeSA         // its replacement
	from     *ikeSA         // what it may replace: rekeyed by the peer, in a collision not settled
	lease    leaseKey
	assigned []netip.Addr // addresses the peer gave us
	dns      []netip.Addr // and DNS servers
	domains  []string     // and what to ask them for

	// began says that our side called, whoever rekeyed since. caller and
	// callee are the addresses of that call; tries counts calls in a row
	// that failed. surplus marks an IKE SA that is not to be made anew.
	began          bool
	caller, callee netip.AddrPort
	initFrom       initKey
	tries          int
	surplus        bool

	// proofEnds is when what has proved the peer ends (a certificate, a
	// revocation list); zero: never. proofNext is when something is due about
	// that. renews is the IKE SA that this one is to replace, renewal the other
	// way round.
	proofEnds, proofNext time.Time
	// authEnds is when the peer wants to have been shown anew who we are, authLife
	// how long it has given for that (RFC 4478); zero: it does not say.
	authEnds        time.Time
	authLife        time.Duration
	renews, renewal *ikeSA

	ending                            string // why it ends, for people; empty: nothing is said
	created, up                       time.Time
	rekeyAt, heard, aliveAt, expireAt time.Time
	counted                           netip.Prefix  // half-open is counted for this
	standing                          standing      // of the address when it began
	place                             *list.Element // among the half-open, or among those with EAP
	fragPlace                         *list.Element // among those that hold fragments
	fragBytes                         int           // of inFrag, as guard has booked them
	fragStanding                      standing      // of the list that fragPlace is in
	hears                             bool          // the peer has answered to something we sent to its address
	at                                time.Time
	index                             int
	spots                             [2]spot // where Core.index has it
}

func (sa *ikeSA) mine() uint64 {
	if sa.initiator {
		return sa.spiI
	}
	return sa.spiR
}

func (sa *ikeSA) theirs() uint64 {
	if sa.initiator {
		return sa.spiR
	}
	return sa.spiI
}

// encap says that child SAs of this IKE SA travel in UDP.
func (sa *ikeSA) encap() bool {
	return sa.natHere || sa.natPeer || sa.prefersUDP
}

// header is for a message of ours.
func (sa *ikeSA) header(exchange uint8, id uint32, response bool) header {
	h := header{spiI: sa.spiI, spiR: sa.spiR, version: version2, exchange: exchange, id: id}
	if sa.initiator {
		h.flags |= flagInitiator
	}
	if response {
		h.flags |= flagResponse
	}
	return h
}

// request is the one request that waits for its answer.
type request struct {
	id       uint32
	exchange uint8
	msgs     [][]byte
	task     task
	tries    int
	wait     time.Duration
	sent     time.Time // the first time
	at       time.Time // next retransmission
}

// task is an exchange that we want to make.
type task interface {
	// build gives the request; false: there is no need any more.
	build(c *Core, sa *ikeSA) (exchange uint8, list []payload, ok bool)
	// answer takes the response.
	answer(c *Core, sa *ikeSA, m *opened, ns notifies)
}

type queued struct {
	task task
	at   time.Time // not before
}

func (sa *ikeSA) enqueue(t task) { sa.queue = append(sa.queue, queued{task: t}) }

func (sa *ikeSA) enqueueAt(t task, at time.Time) { sa.queue = append(sa.queue, queued{t, at}) }

func (sa *ikeSA) enqueueFirst(t task) { sa.queue = append([]queued{{task: t}}, sa.queue...) }

// pump starts the next exchange if none is under way.
func (c *Core) pump(sa *ikeSA) {
	for i := 0; sa.req == nil && sa.job == nil && i < len(sa.queue); {
		q := sa.queue[i]
		if q.at.After(c.now) {
			i++
			continue
		}
		sa.queue = append(sa.queue[:i:i], sa.queue[i+1:]...)
		if ex, list, ok := q.task.build(c, sa); ok {
			c.request(sa, ex, list, q.task)
		}
		if sa.state == stDead {
			return
		}
	}
}

// request sends an encrypted request.
func (c *Core) request(sa *ikeSA, exchange uint8, list []payload, t task) {
	if sa.nextOut == math.MaxUint32 { // RFC 7296 section 2.2: IDs never wrap
		c.fail(sa, Event{Failure: TooMany, Detail: "the message IDs are used up"})
		c.destroy(sa, true)
		return
	}
	msgs, err := sealMessage(sa.header(exchange, sa.nextOut, false), list, sa.out, c.fragmentLimit(sa))
	if err != nil {
		c.fail(sa, Event{Failure: InternalFailure, Detail: err.Error()})
		c.destroy(sa, true)
		return
	}
	c.launch(sa, exchange, msgs, t)
}

func (c *Core) launch(sa *ikeSA, exchange uint8, msgs [][]byte, t task) {
	w := c.schedule(sa).First
	sa.req = &request{id: sa.nextOut, exchange: exchange, msgs: msgs, task: t, tries: 1, wait: w, sent: c.now, at: c.now.Add(w)}
	sa.nextOut++
	c.transmit(sa, msgs)
}

func (c *Core) transmit(sa *ikeSA, msgs [][]byte) {
	for _, m := range msgs {
		c.out.Send = append(c.out.Send, Datagram{Local: sa.local, Remote: sa.remote, Data: m})
	}
	sa.aliveAt = time.Time{}
	if sa.natHere {
		sa.aliveAt = c.now.Add(keepalivePeriod)
	}
}

// schedule is when requests to a peer are sent again.
func (c *Core) schedule(sa *ikeSA) Retransmit {
	r := c.cfg.Retransmit
	if p := sa.peer; p != nil {
		r.First, r.Factor, r.Tries = or(p.Retransmit.First, r.First), or(p.Retransmit.Factor, r.Factor), or(p.Retransmit.Tries, r.Tries)
	}
	return r
}

// patience is how long a request goes without an answer until the peer is given up.
func (r Retransmit) patience() (d time.Duration) {
	wait := float64(r.First)
	for range r.Tries {
		d += time.Duration(wait)
		wait *= r.Factor
	}
	return d
}

// retransmit is due; false when the peer is given up.
func (c *Core) retransmit(sa *ikeSA) bool {
	r, plan := sa.req, c.schedule(sa)
	if r.tries >= plan.Tries {
		return false
	}
	r.tries++
	r.wait = time.Duration(float64(r.wait) * plan.Factor)
	r.at = c.now.Add(r.wait)
	c.stats.Retransmits++
	c.transmit(sa, r.msgs)
	return true
}

func (c *Core) fragmentLimit(sa *ikeSA) int {
	if !sa.fragment {
		return 0
	}
	return c.cfg.Limits.FragmentSize
}

// handleResponse takes an encrypted response of the peer.
func (c *Core) handleResponse(sa *ikeSA, h header, d Datagram) {
	r := sa.req
	if r == nil || h.id != r.id || h.exchange != r.exchange || sa.in == nil {
		c.stats.Dropped++
		return
	}
	m, err := openMessage(h, d.Data, sa.in, &sa.outFrag)
	if err != nil {
		if err != errIncomplete {
			c.stats.Dropped++ // unauthenticated rubbish must not end an exchange
		}
		return
	}
	ns, err := parseNotifies(m.payloads)
	if err != nil {
		c.stats.Dropped++
		return
	}
	sa.heard = c.now
	c.roam(sa, d.Local, d.Remote)
	sa.outFrag = reassembly{}
	if n, ok := ns.failure(); ok && sa.endedBy(n) {
		ev := c.peerError(sa, n)
		ev.Detail = "in answer to " + exchangeName(m.exchange) + ": the two sides do not agree on where they stand, so the IKE SA ends"
		c.farewell(sa, ev)
		return
	}
	sa.req = nil
	r.task.answer(c, sa, m, ns)
}

// endedBy says that an error in answer to a request of ours ends the IKE SA.
// INVALID_SYNTAX does on both sides, without a Delete (RFC 7296 section
// 2.21.3). The others of this list, and any error in answer to INFORMATIONAL
// that has no meaning there, say that the two sides do not have the same state.
func (sa *ikeSA) endedBy(n notify) bool {
	if sa.state != stUp && sa.state != stReplaced {
		return false
	}
	switch n.kind {
	case nInvalidSyntax, nUnsupportedCritical, nInvalidIKESPI, nInvalidMajorVersion, nInvalidMessageID, nAuthFailed:
		return true
	}
	_, probe := sa.req.task.(*infoTask)
	return probe && n.kind != nTemporaryFailure
}

// handleRequest takes an encrypted request of the peer.
func (c *Core) handleRequest(sa *ikeSA, h header, d Datagram) {
	if h.id+1 == sa.nextIn {
		// A retransmission is the same bytes again (RFC 7296 section 2.1);
		// of fragments, the first asks for the answer (RFC 7383 section 2.6.1).
		if sha256.Sum256(d.Data) == sa.lastHash {
			c.answerAgain(sa, d)
			return
		}
		c.stats.Dropped++
		return
	}
	if h.id != sa.nextIn || sa.state == stInitSent {
		c.stats.Dropped++
		return
	}
	if sa.hs != nil && (sa.initiator || c.jobs.busy(sa.standing, len(d.Data))) {
		c.stats.Dropped++ // it has overtaken the answer to IKE_AUTH, or there is too much to do: it comes again
		return
	}
	if sa.hs != nil && !sa.hs.keyed {
		c.readyKeys(sa, h, d)
		return
	}
	first := isFirst(h, d.Data)
	limit := peersFragments
	if sa.state == stHalfOpen {
		limit = strangersFragments
	}
	m, err := openWithin(h, d.Data, sa.in, &sa.inFrag, limit)
	c.stats.Failures[TooMany] += uint64(c.guard.holdFragments(sa, c.cfg.Limits.FragmentBytes))
	if err == errTooLong && sa.state == stHalfOpen {
		c.fail(sa, Event{Failure: TooMany, Detail: fmt.Sprintf("a message of more than %d bytes before the peer has proved who it is: it may have fewer or smaller certificates", limit)})
		c.destroy(sa, true)
		return
	}
	if err == errIncomplete {
		if first {
			sa.lastHash = sha256.Sum256(d.Data)
		}
		return
	}
	if err == errIntegrity || m == nil {
		c.stats.Dropped++
		return
	}
	if first {
		sa.lastHash = sha256.Sum256(d.Data)
	}
	sa.heard = c.now
	if sa.hs != nil {
		sa.hs.repeats = 0
	}
	c.guard.goesOn(sa)
	c.roam(sa, d.Local, d.Remote)
	sa.inFrag = reassembly{}
	sa.nextIn++
	sa.strays = 0
	sa.lastReply = nil
	c.serve(sa, m, err, d)
}

// isFirst says that a datagram is a whole message or the first fragment.
func isFirst(h header, b []byte) bool {
	n := headerLen + genericLen
	return h.next != plSKF || len(b) > n+1 && b[n] == 0 && b[n+1] == 1
}

// respond seals, sends and remembers the answer to the last request.
func (c *Core) respond(sa *ikeSA, m *opened, d Datagram, list []payload) {
	msgs, err := sealMessage(sa.header(m.exchange, m.id, true), list, sa.out, c.fragmentLimit(sa))
	if err != nil {
		c.fail(sa, Event{Failure: InternalFailure, Detail: err.Error()})
		c.destroy(sa, true)
		return
	}
	sa.lastReply = msgs
	for _, b := range msgs {
		c.reply(d, b)
	}
}

// serve answers a request that has passed its integrity check. bad is what is
// wrong with its payloads.
func (c *Core) serve(sa *ikeSA, m *opened, bad error, d Datagram) {
	ns, err := parseNotifies(m.payloads)
	if bad == nil {
		bad = err
	}
	if bad == nil {
		if kind := unknownCritical(m.payloads); kind != 0 {
			c.respond(sa, m, d, []payload{note(nUnsupportedCritical, kind)})
			return
		}
	}
	allowed := sa.state != stHalfOpen
	switch m.exchange {
	case exIntermediate, exIKEAuth:
		allowed = sa.state == stHalfOpen && !sa.initiator
	case exInformational:
		allowed = allowed || sa.hs.eap != nil
	}
	if bad != nil || !allowed {
		if bad == nil {
			bad = syntaxError("%s does not belong here", exchangeName(m.exchange))
		}
		// RFC 7296 section 2.21.3: an authentic message that breaks the
		// rules ends the IKE SA.
		c.respond(sa, m, d, []payload{note(nInvalidSyntax)})
		c.fail(sa, Event{Failure: Malformed, Detail: bad.Error()})
		c.destroy(sa, true)
		return
	}
	if f := sa.from; f != nil && f.state == stUp && !endsIKE(m.payloads) {
		// The peer uses it, so for the peer the collision is settled.
		c.adopt(f, sa)
		f.expireAt = c.now.Add(abandonTime)
		c.settle(f)
	}
	switch m.exchange {
	case exIntermediate:
		c.serveIntermediate(sa, m, d)
	case exIKEAuth:
		c.serveAuth(sa, m, ns, d)
	case exCreateChildSA:
		c.respondOrEnd(sa, m, d, c.serveCreate(sa, m, ns))
	case exFollowupKE:
		c.respondOrEnd(sa, m, d, c.serveFollowup(sa, m, ns))
	case exInformational:
		if sa.state == stHalfOpen {
			c.breakEAP(sa, m, ns, d)
			return
		}
		c.serveInformational(sa, m, ns, d)
	default:
		c.respondOrEnd(sa, m, d, []payload{note(nInvalidSyntax)})
	}
}

// respondOrEnd answers, and ends the IKE SA if the answer is INVALID_SYNTAX: the
// peer ends it as well when it hears that (RFC 7296 section 2.21.3).
func (c *Core) respondOrEnd(sa *ikeSA, m *opened, d Datagram, list []payload) {
	c.respond(sa, m, d, list)
	if sa.state == stDead || !slices.ContainsFunc(list, isInvalidSyntax) {
		return
	}
	if n := len(c.out.Events); n == 0 || c.out.Events[n-1].Failure != Malformed {
		c.fail(sa, Event{Failure: Malformed, Detail: exchangeName(m.exchange) + " of the peer cannot be understood"})
	}
	c.destroy(sa, true)
}

// isInvalidSyntax says that a payload is a note of INVALID_SYNTAX.
func isInvalidSyntax(p payload) bool {
	n, err := parseNotify(p.body)
	return p.kind == plNotify && err == nil && n.kind == nInvalidSyntax
}
