package engine

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
)

// Outcome is what a Trial came to.
type Outcome struct {
	// Verdict is what policy says of such packets: protect also where this
	// very packet is dropped, because it came in the clear or no SA is there.
	Verdict Verdict
	// Result is what happened to the packet.
	Result Result
	// Rule is the rule that decided, nil for the policy's default and for
	// packets no rule was asked about.
	Rule *Rule
	// Input is the packet as it was judged.
	Input Input
}

// Leaves says of a packet that policy protects that it is one to be sealed; else
// it is one that has to come out of an SA.
func (o *Outcome) Leaves() bool {
	return o.Result.Reason == ReasonNoSA || o.Result.Verdict == Protect && o.Input.SA == ""
}

// Pretend is an Options.Outbound for dry runs, where packets are judged and none
// is sealed: there is an SA for whatever a rule protects where may says that
// there can be one.
func Pretend(may func(*Rule, *Input) bool) func(*Rule, *Input) *esp.SA {
	return func(r *Rule, in *Input) *esp.SA {
		if !may(r, in) {
			return nil
		}
		return someSA(r, in)
	}
}

// Run judges the trial's packet by the policy of e and with the SAs that it
// has, with no flows known but those that the trial itself speaks of. e does
// not change.
func (t Trial) Run(e *Engine) (Outcome, error) {
	scratch := New(e.sorted(), Options{MaxFlows: flowShards, MaxFragments: 1, Outbound: e.options.Outbound})
	if name := t.RelatedTo; name != "" && !slices.ContainsFunc(scratch.sorted().Rules, func(r Rule) bool { return r.Name == name && r.Action == Bypass }) {
		return Outcome{}, fmt.Errorf("related %q: no rule of that name lets anything pass in the clear", name)
	}
	in, err := t.input(t.Spec, t.Dir)
	if err != nil {
		return Outcome{}, err
	}
	if t.Answer {
		t.askGroup(scratch, &in)
	}
	if t.Protected && in.SA == "" {
		in.SA = scratch.saFor(&in)
	}
	if t.Established {
		if err := t.openFlow(scratch, in.SA); err != nil {
			return Outcome{}, err
		}
	}
	r, judged := scratch.trial(&in)
	if t.Fragment && judged {
		later, err := t.laterFragment(in)
		if err != nil {
			return Outcome{}, err
		}
		in = later
		r, _ = scratch.trial(&in)
	}
	if judged && t.Interface == "lo" && t.Dir != Forward && r.Verdict != Bypass {
		r = Result{Verdict: Bypass, Reason: ReasonLoopback, Rule: NoRule}
	}
	o := Outcome{Verdict: r.Verdict, Result: r, Input: in}
	if r.Rule >= 0 {
		o.Rule = &scratch.sorted().Rules[r.Rule]
	}
	if r.Reason == ReasonClear || r.Reason == ReasonNoSA {
		o.Verdict = Protect
	}
	return o, nil
}

// askGroup makes an engine one of a host that has just asked what in answers, and
// whose neighbour the sender is.
func (t Trial) askGroup(e *Engine, in *Input) {
	p := &in.Packet
	e.options.Networks = func(string) []netip.Prefix {
		return []netip.Prefix{netip.PrefixFrom(p.Src, p.Src.BitLen())}
	}
	if s := e.spd.Load(); s.questions != nil && isHost(p.Dst) {
		s.questions.note(netip.AddrPortFrom(p.Dst, p.DstPort), in.InIf, in.Now)
	}
}

// trial parses the input's bytes and judges them, as the daemon does.
func (e *Engine) trial(in *Input) (r Result, judged bool) {
	b := in.Packet.Bytes
	if f := packet.Parse(&in.Packet, b, len(b)); f != packet.OK {
		return e.Malformed(f), false
	}
	return e.Judge(in), true
}

// input builds the packet's bytes, so that a trial goes through the same
// parser as live traffic.
func (t Trial) input(spec packet.Spec, d Direction) (Input, error) {
	if t.Fragment {
		spec.Fragment, spec.ID = true, 1
		spec.Payload = make([]byte, 64)
	}
	b, err := packet.Build(spec)
	if err != nil {
		return Input{}, fmt.Errorf("building the packet: %w", err)
	}
	in := Input{Dir: d, Now: 1, SA: t.SA}
	if t.RelatedTo != "" {
		in.Expected, in.master = true, &query{stated: t.RelatedTo}
	}
	if f := packet.Parse(&in.Packet, b, len(b)); f != packet.OK {
		in.Packet.Bytes = b
		return in, nil // judging it will say so
	}
	if d == Out || d == Forward && t.Protected { // of what comes protected the side in the clear counts
		in.OutIf = t.Interface
	} else {
		in.InIf = t.Interface
	}
	return in, nil
}

// laterFragment is the next piece of the datagram whose first is in.
func (t Trial) laterFragment(first Input) (Input, error) {
	spec := t.Spec
	spec.Fragment, spec.LastFragment, spec.ID = true, true, 1
	spec.FragOffset = first.Packet.Len - first.Packet.Transport
	spec.Payload = make([]byte, 64)
	b, err := packet.Build(spec)
	if err != nil {
		return Input{}, fmt.Errorf("building the fragment: %w", err)
	}
	in := first
	in.Packet.Bytes = b
	return in, nil
}

// openFlow lets the flow of an established packet open, if policy lets one of
// the two sides open it: a side that a rule names before one that only the
// default lets open, and the packet's own side before the other. If it lets
// neither, no such flow exists, and the packet will be judged without one.
func (t Trial) openFlow(e *Engine, sa string) error {
	var first *Input
	byDefault := false
	for _, turn := range []bool{false, true} {
		in, err := t.opening(turn)
		if err != nil {
			return err
		}
		in.SA = sa
		if in.Packet.HasICMP && isEchoReply(&in.Packet) || !turn && t.answersSYN() {
			continue // the other side asked
		}
		r := in.tryOn(e.sorted())
		if r.Reason == ReasonClear { // such a flow opens under its SA
			in.SA = e.sorted().Rules[r.Rule].With
			r = in.tryOn(e.sorted())
		}
		if r.Verdict != Discard && (first == nil || byDefault && r.Rule >= 0) {
			first, byDefault = &in, r.Rule < 0
		}
	}
	if first != nil {
		was := e.options.Outbound
		e.options.Outbound = someSA
		e.trial(first)
		e.options.Outbound = was
	}
	return nil
}

// sorted gives the policy in force with its long lists sorted, so that no trial
// sorts them again.
func (e *Engine) sorted() *Policy { return e.spd.Load().policy }

// answersSYN says that the packet is a SYN+ACK: the other side has sent a SYN.
func (t *Trial) answersSYN() bool {
	const both = packet.SYN | packet.ACK
	return t.Spec.Protocol == packet.TCP && t.Spec.TCPFlags&both == both
}

// tryOn judges the packet by a policy under which every SA is there.
func (in Input) tryOn(p *Policy) Result {
	r, _ := New(p, Options{MaxFlows: flowShards, MaxFragments: 1, Outbound: someSA}).trial(&in)
	return r
}

// someSA stands for an SA that a packet goes under, or a flow of the past was
// opened under. It seals nothing: a trial is judged and not sent.
func someSA(*Rule, *Input) *esp.SA { return new(esp.SA) }

// opening is the packet that opens the trial's flow, sent by the packet's own
// side or by the other.
func (t Trial) opening(turn bool) (Input, error) {
	t.Fragment = false
	spec, d := t.Spec, t.Dir
	if spec.Protocol == packet.TCP {
		spec.TCPFlags = packet.SYN
	}
	if turn {
		spec.Src, spec.Dst, spec.SrcPort, spec.DstPort = spec.Dst, spec.Src, spec.DstPort, spec.SrcPort
		switch spec.Protocol {
		case packet.ICMP:
			spec.ICMPType = echoRequest
		case packet.ICMPv6:
			spec.ICMPType = echoRequest6
		}
		if d != Forward {
			d = 1 - d
		}
	}
	return t.input(spec, d)
}

// saFor names the SA that policy wants for a packet, if it wants one.
func (e *Engine) saFor(in *Input) string {
	s := e.spd.Load()
	q := queryOf(in)
	if r := s.lookup(&q, in.Now, again); r.Verdict == Protect {
		return s.policy.Rules[r.Rule].With
	}
	return "an SA that no rule names"
}
