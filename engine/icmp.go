package engine

import "github.com/ipfw/ipfw/packet"

// Types of ICMP (RFC 792) and ICMPv6 (RFC 4443) that the flow cache knows.
const (
	echoReply   = 0
	unreachable = 3
	echoRequest = 8
	timeExceed  = 11
	paramProb   = 12

	unreachable6  = 1
	packetTooBig6 = 2
	timeExceed6   = 3
	paramProb6    = 4
	echoRequest6  = 128
	echoReply6    = 129
)

func isEcho(p *packet.Packet) bool {
	if p.Protocol == packet.ICMP {
		return p.ICMPType == echoRequest || p.ICMPType == echoReply
	}
	return p.ICMPType == echoRequest6 || p.ICMPType == echoReply6
}

func isEchoReply(p *packet.Packet) bool {
	if p.Protocol == packet.ICMP {
		return p.ICMPType == echoReply
	}
	return p.ICMPType == echoReply6
}

// isICMPError says whether a message reports on another packet. Redirects do
// not belong to the flow they quote: they change routes, and need a rule.
func isICMPError(p *packet.Packet) bool {
	if p.Protocol == packet.ICMP {
		switch p.ICMPType {
		case unreachable, timeExceed, paramProb:
			return true
		}
		return false
	}
	switch p.ICMPType {
	case unreachable6, packetTooBig6, timeExceed6, paramProb6:
		return true
	}
	return false
}

// related lets an ICMP error pass if it speaks of a packet of a flow that was
// let through, and goes to that packet's sender (RFC 4301 section 6.2, RFC
// 5927 section 4.1). It does not change the flow.
func (e *Engine) related(s *spd, in *Input) (Result, bool) {
	var quoted Input
	if in.Packet.Quoted(&quoted.Packet) != packet.OK || quoted.Packet.Src != in.Packet.Dst {
		return Result{}, false
	}
	quoted.Dir = in.Dir // only Forward matters to the key
	key, sender, ok := flowKeyOf(&quoted)
	if !ok {
		return Result{}, false
	}
	shard := e.flows.shard(&key)
	shard.Lock()
	defer shard.Unlock()
	f := shard.flows[key]
	if f == nil || f.expires <= in.Now {
		return e.relatedUnknown(s, in, &quoted, key, sender)
	}
	if f.packets[sender] == 0 && !f.offloaded {
		return Result{}, false
	}
	if f.generation != s.generation {
		if r := s.redecide(f); r.Verdict == Discard && !(f.offloaded && f.cut(&r)) {
			shard.remove(f)
		}
	}
	if f.verdict == Discard {
		return Result{}, false
	}
	// An error about a protected flow that comes in the clear, from a router
	// on the way, is judged by the rules, not by the flow (RFC 4301 section 6).
	leaving := f.leaves(in, 1-sender)
	if f.verdict == Protect && !leaving && in.SA == "" {
		return Result{}, false
	}
	if !f.isWith(in) {
		return Result{Reason: ReasonOtherPeer, Rule: f.rule}, true
	}
	in.with(f)
	return e.conform(s, in, Result{Verdict: f.verdict, Reason: ReasonRelated, Rule: f.rule, Established: true, opened: f.dir}, leaving), true
}

// relatedUnknown is related for a flow that the kernel knows to have been let
// through and the engine does not: it is looked up as a packet of its own would
// be, and passes or not as the packet that the error quotes would.
func (e *Engine) relatedUnknown(s *spd, in, quoted *Input, key flowKey, sender uint8) (Result, bool) {
	if !in.Tracked || in.SA != "" {
		return Result{}, false
	}
	if in.Dir != Forward {
		quoted.Dir = Out - in.Dir // In for Out, Out for In
	}
	quoted.Now, quoted.Reply, quoted.InIf, quoted.OutIf = in.Now, !in.Reply, in.OutIf, in.InIf
	opener := sender
	if quoted.Reply {
		opener = 1 - sender
	}
	_, r := e.ask(s, quoted, flow{key: key, opener: opener}, sender, again)
	r.Reason, r.Established, r.Log = ReasonRelated, true, false
	return r, r.Verdict == Bypass
}
