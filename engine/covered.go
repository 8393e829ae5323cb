package engine

import (
	"net/netip"

	"github.com/ipfw/ipfw/packet"
)

// This file is about ICMP messages that quote a packet of no flow that is known:
// is that packet one that a rule protects? Then a message that takes it towards
// the far end leaves under the rule's SA, or not at all, and one that comes from
// there in the clear does not come in, whatever rules say of ICMP. In doubt the
// answer is yes.

// fewProtectRules is how many protect rules are looked at one by one for a quoted
// packet of which only the addresses are known.
const fewProtectRules = 64

// covered judges a message by what policy says of the packet it quotes. false:
// the rules decide.
func (e *Engine) covered(s *spd, in, quoted *Input) (Result, bool) {
	if len(s.protects) == 0 || isSealed(&quoted.Packet) {
		return Result{}, false
	}
	for _, forward := range e.quotedPaths(in, &quoted.Packet) {
		quoted.Dir = quotedDir(in, forward)
		q := queryOf(quoted)
		rule, turned := s.protecting(&q), false
		if rule == NoRule {
			q.turn()
			rule, turned = s.protecting(&q), true
		}
		if rule == NoRule {
			continue
		}
		towards := in.Dir == Out // of what is not forwarded
		if forward {
			towards = s.turns(&q, rule, turned)
		}
		return e.uncover(s, in, rule, towards)
	}
	return Result{}, false
}

// uncover judges a message about a packet that a rule protects. towards says that
// it goes towards the remote side.
func (e *Engine) uncover(s *spd, in *Input, rule int32, towards bool) (Result, bool) {
	switch {
	case towards:
		return e.conform(s, in, Result{Verdict: Protect, Reason: ReasonRelated, Rule: rule, opened: in.Dir}, true), true
	case in.Dir == Out || in.SA != "":
		return Result{}, false
	}
	return s.clearError(rule)
}

// coveredPart is covered for a quoted packet of which no more than the IP header
// can be read, if that.
func (e *Engine) coveredPart(s *spd, in, quoted *Input) (Result, bool) {
	p := &quoted.Packet
	if len(s.protects) == 0 || in.SA != "" || isSealed(p) {
		return Result{}, false
	}
	if !p.Dst.IsValid() || len(s.protects) > fewProtectRules {
		return s.clearErrorIn(in, NoRule)
	}
	for _, i := range s.protects {
		if r := &s.policy.Rules[i]; r.mayCover(p.Src, p.Dst) || r.mayCover(p.Dst, p.Src) {
			return s.clearErrorIn(in, i)
		}
	}
	return Result{}, false
}

// clearErrorIn is clearError for a message that may be on its way out: then no
// policy lets it pass.
func (s *spd) clearErrorIn(in *Input, rule int32) (Result, bool) {
	if in.Dir != In {
		return Result{Reason: ReasonClearError, Rule: rule}, true
	}
	return s.clearError(rule)
}

// clearError is what policy says of messages that arrive in the clear and speak
// of what a rule protects.
func (s *spd) clearError(rule int32) (Result, bool) {
	return Result{Reason: ReasonClearError, Rule: rule}, !s.policy.ClearErrors
}

// isSealed says that a quoted packet is a sealed one, with nothing to be hidden.
// Who has sent it, Options.PathReport looks after.
func isSealed(p *packet.Packet) bool { return p.Protocol == packet.ESP || p.Protocol == packet.AH }

// protecting gives the rule that protects the packet a query asks about; NoRule
// if none does. What a quoted packet does not tell, its interface, its DSCP as it
// left, whether it was within a limit, counts as if the packet were to be
// protected.
func (s *spd) protecting(q *query) int32 {
	family := 0
	if q.v6 {
		family = 1
	}
	table := s.tables[q.dir][family]
	for from := int32(0); ; from++ {
		if from = table.First(&q.key, from); from < 0 {
			return NoRule
		}
		rule := &s.policy.Rules[from]
		if rule.Audit {
			continue
		}
		sure := len(rule.Interfaces) == 0 && len(rule.DSCP) == 0 && len(rule.RelatedTo) == 0
		switch f := rule.mismatch(q); {
		case rule.Action == Protect && (f == matches || f == fieldInterface || f == fieldDSCP || f == fieldRelated):
			return from
		case f == matches && sure && rule.Limit == nil:
			return NoRule
		}
	}
}

// turn makes the query ask about the packet that the one it asked about would be
// an answer to.
func (q *query) turn() {
	if q.key.Proto == packet.ICMP && q.key.LocalPort == echoReply<<8 {
		q.key.LocalPort, q.key.RemotePort = echoRequest<<8, echoRequest<<8
	} else if q.key.Proto == packet.ICMPv6 && q.key.LocalPort == echoReply6<<8 {
		q.key.LocalPort, q.key.RemotePort = echoRequest6<<8, echoRequest6<<8
	}
	if q.dir != Forward {
		q.dir = Out - q.dir
		return
	}
	k := &q.key
	k.Local, k.Remote, k.LocalPort, k.RemotePort = k.Remote, k.Local, k.RemotePort, k.LocalPort
}

// turns says whether what goes back to the sender of a forwarded packet goes
// towards the remote side of the rule that protects it. turned says that the
// query asks about the packet that it answers. A rule that does not tell its
// sides apart gives yes.
func (s *spd) turns(q *query, rule int32, turned bool) bool {
	r := &s.policy.Rules[rule]
	k := &q.key
	a, b := netipAddr(k.Local, q.v6), netipAddr(k.Remote, q.v6)
	fromLocal := r.mismatchEnds(a, b, k.LocalPort, k.RemotePort) == matches
	fromRemote := r.mismatchEnds(b, a, k.RemotePort, k.LocalPort) == matches
	if turned {
		fromLocal, fromRemote = fromRemote, fromLocal
	}
	return fromRemote || !fromLocal
}

// mayCover says whether the rule may protect a packet between two addresses.
func (r *Rule) mayCover(local, remote netip.Addr) bool {
	return r.isLocal(local) && r.isRemote(remote)
}
