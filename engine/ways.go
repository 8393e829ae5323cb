package engine

import (
	"cmp"
	"slices"
)

// This file is about the interfaces of a flow's packets. Routes change while a
// flow lives, and a rule that names an interface speaks of every packet: what
// "bypass on wg0, protect the rest" has let through must not go on in the clear
// by another link when wg0 is gone. So a policy that names interfaces is asked
// about each packet of a flow that uses others than the ones it was last asked
// with; an answer is held against the rule with the two changed round. What is
// discarded so does not end the flow, which may come back to where it was.

// loopback is an interface whose packets no policy is asked about.
const loopback = "lo"

// NamesInterfaces says whether what the policy decides about a packet of a flow
// may depend on its interface.
func (p *Policy) NamesInterfaces() bool {
	return slices.ContainsFunc(p.Rules, func(r Rule) bool {
		return slices.ContainsFunc(r.Interfaces, func(name string) bool { return name != loopback })
	})
}

// brought says that the packet has come out of an SA and its way out is not
// known yet.
func (in *Input) brought() bool { return in.SA != "" && in.Arriving && in.Dir == Forward }

// way gives the interfaces of a packet as its flow's opener has them.
func (f *flow) way(in *Input, side uint8) (inIf, outIf string) {
	if side == f.opener {
		return in.InIf, in.OutIf
	}
	return in.OutIf, in.InIf
}

// conduct gives what policy says of a packet of a flow that it lets pass, and
// whether it goes towards the remote side.
func (s *spd) conduct(f *flow, in *Input, side uint8) (r Result, leaving bool) {
	r = Result{Verdict: f.verdict, Reason: ReasonFlow, Rule: f.rule, Established: true, opened: f.dir, longest: f.longest[side]}
	leaving = f.leaves(in, side)
	if !s.interfaces {
		return r, leaving
	}
	inIf, outIf := f.way(in, side)
	same := inIf == f.inIf && outIf == f.outIf
	switch {
	case same, side == f.opener && in.brought() && inIf == f.inIf:
		return r, leaving
	case side != f.opener && f.verdict == Protect && !in.Opened:
		// The answers to what is protected are, or are nothing, whichever way
		// they come.
		return r, leaving
	}
	q := f.query()
	q.inIf, q.outIf = inIf, outIf
	if in.brought() {
		q.brought = in.SA
	}
	now := s.lookup(&q, in.Now, again)
	now.NAudits = 0
	switch {
	case now.Verdict == Discard:
		return now, leaving
	case side == f.opener:
		f.decide(s, &q, &now)
		f.inIf, f.outIf = inIf, outIf
		leaving = f.leaves(in, side)
	case now.Verdict == Protect && f.verdict != Protect:
		leaving = in.Dir == Out || in.Dir == Forward && s.leaves(&q, true, &now) == (side == f.opener)
	}
	r.Verdict, r.Rule = now.Verdict, now.Rule
	return r, leaving
}

// conductError is conduct for an ICMP error that side sends, or this host to
// whom side speaks to: it changes nothing in the flow, and where policy protects
// what goes by its interfaces it does not pass.
func (s *spd) conductError(f *flow, in *Input, side uint8) Result {
	r := Result{Verdict: f.verdict, Reason: ReasonRelated, Rule: f.rule, Established: true, opened: f.dir}
	if !s.interfaces || f.verdict == Protect {
		return r
	}
	inIf, outIf := f.way(in, side)
	inIf, outIf = cmp.Or(inIf, f.inIf), cmp.Or(outIf, f.outIf)
	if inIf == f.inIf && outIf == f.outIf {
		return r
	}
	q := f.query()
	q.inIf, q.outIf = inIf, outIf
	switch now := s.lookup(&q, in.Now, again); now.Verdict {
	case Bypass:
		r.Rule = now.Rule
	case Protect:
		r.Verdict, r.Reason, r.Rule = Discard, ReasonClearError, now.Rule
	default:
		r.Verdict, r.Reason, r.Rule = Discard, now.Reason, now.Rule
	}
	return r
}
