// Package engine is RFC 4301 section 5 as code: it gives every packet of a
// host one of three verdicts, bypass, discard or protect.
//
//	            nfq                 packet               engine
//	kernel --> receive --bytes--> Parse --Packet--> Outbound | Inbound
//	                                                     |
//	   Outbound:  SPD lookup, first match                |
//	                DISCARD -> drop                      |
//	                BYPASS  -> accept unchanged          |
//	                PROTECT -> SA of that rule -> esp.Seal
//	   Inbound, ESP or AH addressed to us:               |
//	                SAD by SPI -> esp.Open -> Parse inner
//	                -> the SPD must say PROTECT by this very SA
//	   Inbound, anything else:                           |
//	                SPD lookup: BYPASS accepts; DISCARD drops; PROTECT in the clear drops
//	                                                     v
//	                                   Result{Verdict, Reason, Rule, bytes}
//	kernel <-- drop | accept | accept new bytes | inject <-- nfq
//
// The forward path runs through the same code: a rule's local side is the
// network behind this host. The engine does no I/O and has no clock; the daemon and every dry run
// call the same Judge, so that they cannot drift apart.
//
// Limits: TCP windows are not tracked, only what a reset must hit to end a
// flow (RFC 5961 section 3); SCTP and unknown protocols are tracked by
// addresses and ports alone.
package engine

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
)

// Options are the bounds of an Engine and its ties to keys and addresses. The
// zero value takes the default bounds and knows no SAs, as a dry run does.
type Options struct {
	MaxFlows     int // flows remembered at most; default 262,144
	MaxFragments int // fragmented datagrams remembered at most, of those out of SAs as many again; default 4,096

	// SAD holds the SAs that arriving packets are opened with.
	SAD *esp.SAD
	// Outbound gives the SA for a packet that a rule protects, nil when
	// there is none yet: then it is discarded, and whoever gives SAs may
	// begin to make one. It is called for each such packet.
	Outbound func(*Rule, *Input) *esp.SA
	// Hold is asked about a packet for which Outbound gave no SA: true says
	// that a copy of it waits until there is one, and comes again then.
	Hold func(*Rule, *Input) bool
	// Early is asked about a packet that arrived for an SPI of which there is
	// no SA: true says that a copy of it waits until there is one, and is
	// given to Process then, or, where sealed is not nil, to Unseal. The
	// peer may use an SA before its answer, which brings the keys, is here.
	Early func(in *Input, sealed []byte) bool
	// Carries says whether the packet that came out of an SA is of those that
	// the two ends have agreed on for it (RFC 4301 section 5.2 step 4); nil:
	// the rules alone decide. in is the inner packet.
	Carries func(sa *esp.SA, in *Input) bool
	// Inherited says whether an earlier ipfw had let through the flow of a
	// packet that came out of an SA, and that no mark tells of; nil: no.
	Inherited func(*packet.Packet) bool
	// Opener says which side has opened a TCP connection of this host that was
	// there before this ipfw; OpenedByEither: it is not known. nil: there was none.
	Opener func(local, remote netip.AddrPort) Opener
	// Master names the connection that expects the flow of a packet, if the packet
	// is Expected, or if it is Tracked and an earlier ipfw had let the flow through
	// as one that was expected; false: it is not known. nil: nothing is expected.
	Master func(*Input) (Ends, bool)
	// IsLocal says whether an address is this host's own.
	IsLocal func(netip.Addr) bool
	// Networks gives the networks that an interface has addresses in, with any
	// address in each; nil for an interface that is not known. It is asked
	// about what may be a question to a broadcast address, or an answer to one.
	// nil: no network is known.
	Networks func(dev string) []netip.Prefix
	// Rekey hears, once, that an SA has reached its soft lifetime.
	Rekey func(*esp.SA)
	// PathReport hears that a router had to drop a sealed packet of ours:
	// quoted is what the ICMP error quotes of it, mtu what it says passes, in
	// bytes, 0 if it does not say. It gives false if the quoted packet would
	// be one of an SA and is none that was sent lately: then the error does
	// not come in. See esp.SA.PathReport.
	PathReport func(quoted *packet.Packet, mtu int, now int64) bool
	// ICMPError hears of each ICMP error that arrives in the clear, whatever
	// becomes of it: anybody can have sent it.
	ICMPError func(*Input)
	// Opened hears of each packet that an SA has proved authentic, with the
	// packet as it arrived: a peer behind a NAT may have moved.
	Opened func(*esp.SA, *Input)
}

// Engine judges packets. All its methods may be called concurrently.
type Engine struct {
	options   Options
	spd       atomic.Pointer[spd]
	reload    sync.Mutex // one Reload at a time
	flows     flowTable
	fragments fragmentTable
	assembly  reassembler
	told      told
	noted     noted
	reasons   [reasonCount]atomic.Uint64
	beside    beside
}

// New builds an engine for a policy.
func New(p *Policy, o Options) *Engine {
	e := &Engine{options: o}
	e.flows.init(o.MaxFlows)
	e.fragments.init(o.MaxFragments)
	e.assembly.init(o.MaxFragments)
	e.told.seed = maphash.MakeSeed()
	e.spd.Store(compile(p, nil))
	return e
}

// Reload puts another policy in force. Flows stay known, and each is looked
// up again under the new policy when its next packet comes.
func (e *Engine) Reload(p *Policy) {
	e.reload.Lock()
	defer e.reload.Unlock()
	e.spd.Store(compile(p, e.spd.Load()))
}

// Generation counts the policies that were put in force, from 1: Result.Offload
// is the generation of the policy that decided.
func (e *Engine) Generation() uint32 { return e.spd.Load().generation }

// Ask gives what the rules say of a flow that such a packet opens, and counts
// nothing.
func (e *Engine) Ask(in *Input) Result {
	return e.spd.Load().ask(in)
}

// Policy gives the policy in force. It must not be changed.
func (e *Engine) Policy() *Policy { return e.spd.Load().given }

// Judge gives the verdict for one packet that packet.Parse has accepted.
func (e *Engine) Judge(in *Input) Result {
	s := e.spd.Load()
	return e.finish(s, in, e.judge(s, in))
}

// finish counts a packet's result.
func (e *Engine) finish(s *spd, in *Input, r Result) Result {
	if in.Opened {
		return e.finishOpened(s, in, r)
	}
	s.asked(in, &r)
	s.count(in, &r)
	n := 1 + uint64(in.Merged)
	if !in.Again {
		e.reasons[r.Reason].Add(n)
		return r
	}
	e.beside.Lock()
	e.reasons[r.Reason].Add(n)
	e.beside.again += n
	e.beside.Unlock()
	return r
}

// Malformed gives the verdict for bytes that packet.Parse has refused.
func (e *Engine) Malformed(f packet.Fault) Result {
	r := Result{Reason: ReasonOf(f), Rule: NoRule}
	e.reasons[r.Reason].Add(1)
	return r
}

// judge is the way of one packet. Every return that is not an explicit
// bypass or protect is a discard, because that is Result's zero value.
func (e *Engine) judge(s *spd, in *Input) Result {
	e.relate(s, in)
	if in.Packet.SourceRouted {
		return Result{Reason: ReasonSourceRoute, Rule: NoRule}
	}
	if in.Packet.Fragment {
		return e.judgeFragment(s, in)
	}
	return e.judgeWhole(s, in)
}

// judgeWhole judges a packet whose upper-layer header is there.
func (e *Engine) judgeWhole(s *spd, in *Input) Result {
	p := &in.Packet
	if in.Opened {
		return e.judgeOpened(s, in)
	}
	if p.HasICMP && p.Quotes() {
		if r, ok := e.related(s, in); ok {
			r.alone = true
			return r
		}
	}
	key, side, ok := flowKeyOf(in)
	if !ok || in.Alone {
		e.findQuestion(s, in)
		return e.judgeAlone(s, in)
	}

	e.findMaster(s, in)
	shard := e.flows.shard(&key)
	shard.Lock()
	defer shard.Unlock()
	f := shard.get(&key, in.Now)
	if f != nil && (f.reopenedBy(p) || f.isAnother(in, side)) {
		shard.remove(f)
		return e.open(s, shard, in, key, side, f)
	}
	if f == nil {
		return e.open(s, shard, in, key, side, nil)
	}
	if f.generation != s.generation {
		if r := s.redecide(f, in); r.Verdict == Discard && !(in.Offloadable && in.Tracked && f.cut(s, &r)) {
			shard.remove(f)
			return r
		}
	}
	if f.verdict == Discard {
		return f.refuse(s, in, side)
	}
	if !f.isWith(in) {
		return Result{Reason: ReasonOtherPeer, Rule: f.rule}
	}
	in.with(f)
	r, leaving := s.conduct(f, in, side)
	if r.Verdict == Discard {
		return r
	}
	if r = e.conform(s, in, r, leaving); r.Verdict != Discard {
		f.resume(in)
		f.update(p, side, in.Now, &s.timeouts)
		f.arrive(in, side)
		r.Offload = f.offload(s, in, &r)
	}
	return r
}

// judgeAlone judges a packet that belongs to no flow by the rules alone.
func (e *Engine) judgeAlone(s *spd, in *Input) Result {
	q := queryOf(in)
	if in.brought() {
		q.brought = in.SA
	}
	r := s.lookup(&q, in.Now, fresh)
	r.alone = true
	return e.conform(s, in, r, s.leaves(&q, in.SA == "", &r))
}

// open judges a packet that belongs to no known flow, and remembers the flow
// if policy lets it open. before is a flow between the same ends that is over.
func (e *Engine) open(s *spd, shard *flowShard, in *Input, key flowKey, side uint8, before *flow) Result {
	e.findQuestion(s, in)
	tracked, reply := in.Tracked, in.Reply
	accepted := e.recall(in)
	if s.speaksToAnswerer(in) {
		in.Tracked, in.Reply = false, false
	}
	r := e.begin(s, shard, in, key, side, before, accepted)
	in.Tracked, in.Reply = tracked, reply
	return r
}

// begin is open with all that is known of the packet's flow.
func (e *Engine) begin(s *spd, shard *flowShard, in *Input, key flowKey, side uint8, before *flow, accepted bool) Result {
	p := &in.Packet
	// The kernel may know a flow that this engine has not seen open: then it
	// is looked up as the packet that opened it, and no limit counts it.
	known := in.Tracked || in.Reply
	what, opener := fresh, side
	if known {
		what = again
	}
	if in.Reply {
		opener = 1 - side
	}
	switch {
	case known:
	case p.Protocol == packet.TCP && !opensTCP(p):
		return e.beginHalf(s, shard, in, key, side)
	case p.HasICMP && isEchoReply(p):
		// An answer to a question nobody asked opens nothing, but a rule
		// may still let it pass.
		return e.judgeAlone(s, in)
	}

	asked, r := e.ask(s, in, flow{key: key, opener: opener}, side, what)
	if r.Verdict == Discard && known && !accepted {
		// Where sealed packets leave in place of the clear ones, the kernel
		// has not seen the flow open, and takes its first answer for that.
		turned := *in
		turned.Reply = !in.Reply
		if f, again := e.ask(s, &turned, flow{key: key, opener: 1 - opener}, side, what); again.Verdict == Protect {
			asked, r = f, again
		}
	}
	if s.answered(&r) {
		r.alone = true
		return r
	}
	if r.Verdict == Discard {
		return r // and nothing was allocated: a flood of these costs no memory
	}
	f := new(flow)
	*f = asked
	if !shard.insert(f, in.Now) {
		return Result{Reason: ReasonFlowTableFull, Rule: r.Rule}
	}
	f.verdict, f.rule, f.generation = r.Verdict, r.Rule, s.generation
	if f.holder = in.Holder; r.sa != nil {
		f.holder = r.sa.Holder()
	}
	f.start(p, side, in.Now, known, &s.timeouts)
	f.arrive(in, side)
	if before != nil {
		f.follows(before)
	}
	r.NewFlow, r.Established = !known, known
	r.Offload = f.offload(s, in, &r)
	return r
}

// recall finds out what is known of the flow of a packet beside what the kernel's
// marks tell. accepted says that it was opened by the other side before this ipfw
// was there.
func (e *Engine) recall(in *Input) (accepted bool) {
	p := &in.Packet
	if p.Protocol == packet.TCP && p.TCPFlags&(packet.SYN|packet.ACK) == packet.SYN {
		in.Tracked, in.Reply = false, false // it opens, whatever was between these ends
		return false
	}
	// Connection tracking that has begun in the middle of a connection takes
	// whoever it saw first for the one who opened it.
	switch e.opener(in) {
	case OpenedByRemote:
		in.Reply = in.Dir == Out
		return true
	case OpenedByLocal:
		in.Reply = in.Dir == In
		return false
	}
	if in.from != nil && !in.Reply && !in.Tracked {
		in.Tracked = e.options.Inherited != nil && e.options.Inherited(p)
	}
	return false
}

// opener asks about a packet of a connection that may be older than this ipfw.
func (e *Engine) opener(in *Input) Opener {
	p := &in.Packet
	src, dst := netip.AddrPortFrom(p.Src, p.SrcPort), netip.AddrPortFrom(p.Dst, p.DstPort)
	switch {
	case e.options.Opener == nil || p.Protocol != packet.TCP || in.SA != "":
	case in.Dir == Out:
		return e.options.Opener(src, dst)
	case in.Dir == In:
		return e.options.Opener(dst, src)
	}
	return OpenedByEither
}

// ask looks up the packet that opened a flow, of which in is one packet, sent
// by side, and gives the flow as it may be remembered.
func (e *Engine) ask(s *spd, in *Input, f flow, side uint8, what mode) (flow, Result) {
	f.dir = openingDirection(in)
	f.remember(in)
	q := f.query()
	q.answers = in.answers
	if in.brought() {
		q.brought = in.SA
	}
	r := s.lookup(&q, in.Now, what)
	f.outgoing = s.leaves(&q, (in.SA == "") == (side == f.opener), &r)
	return f, e.conform(s, in, r, f.leaves(in, side))
}

// conform holds what policy says against how the packet came (RFC 4301
// section 5): what leaves under protection needs an SA; what must arrive
// protected may not come in the clear; and what came out of an SA must be what
// that SA is for.
func (e *Engine) conform(s *spd, in *Input, r Result, leaving bool) Result {
	switch {
	case r.Verdict == Bypass && in.SA != "":
		r.Verdict, r.Reason = Discard, ReasonWrongSA
	case r.Verdict != Protect:
	case leaving && in.SA != "":
		r.Verdict, r.Reason = Discard, ReasonWrongSA
	case leaving:
		if e.options.Outbound != nil {
			r.sa = e.options.Outbound(&s.policy.Rules[r.Rule], in)
		}
		if r.sa == nil {
			r.Verdict, r.Reason = Discard, ReasonNoSA
		}
	case in.SA == "":
		r.Verdict, r.Reason = Discard, ReasonClear
	case in.SA != s.policy.Rules[r.Rule].With:
		r.Verdict, r.Reason = Discard, ReasonWrongSA
	case in.Dir == Forward && !in.Arriving:
		return s.conformClear(in, r)
	}
	return r
}

// leaves says whether the packet that a query asks about goes towards the
// remote side of the rule that decided: outbound always, on the forward path
// when its source is the rule's local side. unsure is the answer for a rule
// that does not tell its sides apart.
func (s *spd) leaves(q *query, unsure bool, r *Result) bool {
	if q.dir != Forward || r.Verdict != Protect {
		return q.dir == Out
	}
	rule := &s.policy.Rules[r.Rule]
	a, b := netipAddr(q.key.Local, q.v6), netipAddr(q.key.Remote, q.v6)
	fromLocal := rule.OpenedBy != OpenedByRemote && rule.mismatchEnds(a, b, q.key.LocalPort, q.key.RemotePort) == matches
	fromRemote := rule.OpenedBy != OpenedByLocal && rule.mismatchEnds(b, a, q.key.RemotePort, q.key.LocalPort) == matches
	if fromLocal && fromRemote {
		return unsure
	}
	return fromLocal
}
