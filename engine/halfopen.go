package engine

import "github.com/ipfw/ipfw/packet"

// This file is about TCP connections of which this host sees one direction only,
// because their routes are asymmetric: A -> R1 -> B, and B -> R2 -> A. To R2 a
// connection begins with a SYN+ACK. In a host that sees both directions such a
// segment is a forgery or a probe, so it passes only where policy says half_open.

// beginHalf judges a TCP segment of no known flow that begins none: an answer, or
// a reset. It is looked up as an answer to whom it goes to. A flow is remembered
// from a SYN+ACK on; what comes behind a reset stays unknown.
func (e *Engine) beginHalf(s *spd, shard *flowShard, in *Input, key flowKey, side uint8) Result {
	p := &in.Packet
	refused := Result{Reason: ReasonTCPState, Rule: NoRule}
	if !s.anyHalfOpen {
		return refused
	}
	turned := *in
	turned.Reply = true
	asked, r := e.ask(s, &turned, flow{key: key, opener: 1 - side}, side, fresh)
	if r.Verdict != Bypass || !s.halfOpen(r.Rule) {
		return refused
	}
	if p.TCPFlags&packet.RST != 0 {
		r.alone = true
		return r
	}
	f := new(flow) // what was refused has cost no memory
	*f = asked
	if !shard.insert(f, in.Now) {
		return Result{Reason: ReasonFlowTableFull, Rule: r.Rule}
	}
	f.verdict, f.rule, f.generation, f.half = r.Verdict, r.Rule, s.generation, true
	f.start(p, side, in.Now, true, &s.timeouts)
	f.arrive(in, side)
	r.NewFlow = true
	r.Offload = f.offload(s, in, &r)
	return r
}

// halfOpen says whether what decided lets connections pass that are half seen.
func (s *spd) halfOpen(rule int32) bool {
	if rule < 0 {
		return s.policy.HalfOpen
	}
	return s.policy.Rules[rule].HalfOpen
}
