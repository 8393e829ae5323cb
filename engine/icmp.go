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

// related judges an ICMP message by the packet that it quotes. An error passes
// if it speaks of a packet of a flow that was let through, and goes to that
// packet's sender (RFC 4301 section 6.2, RFC 5927 section 4.1); it does not
// change the flow. If the flow is protected so is the error, because it holds a
// part of what is protected. false: the rules decide.
//
//	a == LAN == this host == SA == b     packet b -> a, too long for the LAN
//	            `--error--> b            goes under the SA of the flow b <-> a
func (e *Engine) related(s *spd, in *Input) (Result, bool) {
	var quoted Input
	f := in.Packet.Quoted(&quoted.Packet)
	if f != packet.OK || quoted.Packet.LaterFragment() {
		return e.coveredPart(s, in, &quoted)
	}
	if isICMPError(&in.Packet) && quoted.Packet.Src == in.Packet.Dst {
		for _, forward := range e.quotedPaths(in, &quoted.Packet) {
			if r, known, ok := e.relatedTo(s, in, &quoted, forward); known {
				return r, ok
			}
		}
	}
	return e.covered(s, in, &quoted)
}

// quotedPaths says by which paths the packet that a message quotes may have come:
// true is the forward path. A message of this host may speak of either.
func (e *Engine) quotedPaths(in *Input, quoted *packet.Packet) []bool {
	switch {
	case in.Dir == Forward:
		return forwarded[:]
	case in.Dir == In:
		return ours[:]
	case e.options.IsLocal == nil:
		return either[:]
	case e.isLocal(quoted.Dst):
		return ours[:]
	}
	return forwarded[:]
}

var (
	ours      = [...]bool{false}
	forwarded = [...]bool{true}
	either    = [...]bool{false, true}
)

// quotedDir is the direction in which the quoted packet crossed this host.
func quotedDir(in *Input, forward bool) Direction {
	if forward {
		return Forward
	}
	return Out - in.Dir // In for Out, Out for In
}

// relatedTo is related for one path, if the flow is known.
func (e *Engine) relatedTo(s *spd, in, quoted *Input, forward bool) (r Result, known, ok bool) {
	quoted.Dir = quotedDir(in, forward)
	key, sender, ok := flowKeyOf(quoted)
	if !ok {
		return Result{}, false, false
	}
	shard := e.flows.shard(&key)
	shard.Lock()
	defer shard.Unlock()
	f := shard.flows[key]
	if f == nil || f.expires <= in.Now {
		r, ok = e.relatedUnknown(s, in, quoted, key, sender)
		return r, ok, ok
	}
	if f.packets[sender] == 0 && !f.offloaded {
		return Result{}, false, false
	}
	if f.generation != s.generation {
		if r := s.redecide(f, in); r.Verdict == Discard && !(f.offloaded && f.cut(s, &r)) {
			shard.remove(f)
		}
	}
	if f.verdict == Discard {
		return Result{}, false, false
	}
	leaving := f.leaves(in, 1-sender)
	if f.verdict == Protect && !leaving && in.SA == "" {
		if in.Dir == Out {
			return Result{}, true, false // to whoever sent the quoted packet in the clear
		}
		// One that comes in the clear, from a router on the way or from
		// anybody, is what RFC 4301 section 6.1.1 wants to be controlled.
		r, ok = s.clearError(f.rule)
		return r, true, ok
	}
	if !f.isWith(in) {
		return Result{Reason: ReasonOtherPeer, Rule: f.rule}, true, true
	}
	in.with(f)
	if r = s.conductError(f, in, 1-sender); r.Verdict != Discard {
		r = e.conform(s, in, r, leaving)
	}
	if r.Verdict != Discard {
		f.hearPathMTU(&in.Packet, sender)
	}
	return r, true, true
}

// relatedUnknown is related for a flow that the kernel knows to have been let
// through and the engine does not: it is looked up as a packet of its own would
// be, and passes or not as the packet that the error quotes would.
func (e *Engine) relatedUnknown(s *spd, in, quoted *Input, key flowKey, sender uint8) (Result, bool) {
	if !in.Tracked || in.SA != "" {
		return Result{}, false
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
