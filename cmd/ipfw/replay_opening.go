package main

import (
	"net/netip"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
)

// This file keeps a dry run honest about what would never have been. A capture
// holds whole flows; the policy that is tried may refuse the packet that opens
// one. Its answers are in the capture all the same, and would go out by the rules
// for the other direction, and open the flow from the wrong side:
//
//	A --SYN--> host      refused by the rules for inbound traffic
//	A <-SYN,ACK-- host   never sent: nothing has asked for it
//	A --data--> host     never sent either
//
// So the replayer remembers who opened each flow and whether it was let in, and
// what hangs on a refused packet is not asked about.

// opening is how the packet that opens a flow has fared.
type opening struct {
	opener uint8 // the end that opened it, or would have: 0 is a of the row's key
	open   bool  // it was let through
	// refused is the answer to the packet that would have opened it; nil when
	// it was let through, or has not been seen.
	refused *engine.Result
	unseen  bool  // refused is of an answer: its opener's packets have not been seen
	until   int64 // when an answer, or an error about it, hangs on it no more; answers of TCP always do
}

// refusals are the refused packets that others hang on, beside those of their flow.
type refusals struct {
	// groups are questions to a multicast group, which others answer from
	// addresses of their own.
	groups map[groupQuestion]*flowRow
	// pieces are first fragments that were not asked about; the later ones
	// share their fate.
	pieces map[piece]engine.Result
}

type groupQuestion struct {
	asker      netip.Addr
	port       uint16 // the asker's
	service    uint16 // the port that was asked
	forwarding bool
}

type piece struct {
	src, dst netip.Addr
	id       uint32
	protocol uint8
}

// maxRefusals bounds each of the maps.
const maxRefusals = 1 << 16

// judge asks the engine about a packet, unless it would never have been sent.
func (r *replayer) judge(in *engine.Input, res *engine.Result) {
	row, side := r.flows.find(in)
	switch {
	case row == nil:
		*res = r.engine.Judge(in)
		return
	case row.open && in.Packet.TCPFlags&packet.SYN == 0: // as most packets are
		if *res = r.engine.Judge(in); res.Verdict == engine.Discard {
			r.learn(row, side, in, res)
		}
	case !r.neverSent(row, side, in, res):
		*res = r.engine.Judge(in)
		r.learn(row, side, in, res)
	default:
		r.reasons[res.Reason]++
		if res.Rule >= 0 {
			h := &r.hits[res.Rule]
			h.Packets++
			h.Bytes += uint64(in.Packet.Len)
		}
		if in.Packet.Fragment && !in.Packet.LaterFragment() {
			remember(&r.refusals.pieces, pieceOf(&in.Packet), *res)
		}
	}
	row.count(in, res)
}

// neverSent says whether a packet hangs on one that was refused, and in res what
// becomes of it then.
func (r *replayer) neverSent(row *flowRow, side uint8, in *engine.Input, res *engine.Result) (ok bool) {
	p := &in.Packet
	if p.LaterFragment() {
		*res, ok = r.refusals.pieces[pieceOf(p)]
		return ok
	}
	if row.refused == nil {
		if row.open {
			return false
		}
		asked := r.hangsOn(in)
		if ok = asked != nil && asked.refused != nil && in.Now < asked.until; ok {
			*res = never(asked.refused, true)
		}
		return ok
	}
	answer := side != row.opener
	switch {
	case p.Protocol == packet.TCP:
		if p.TCPFlags&(packet.SYN|packet.ACK) == packet.SYN || !answer && row.unseen {
			return false
		}
	case !answer, in.Now >= row.until:
		return false
	}
	*res = never(row.refused, answer)
	return true
}

// never is the outcome of a packet that hangs on one with the outcome was. What
// policy protects and the capture has in the clear would have been sent sealed.
func never(was *engine.Result, answer bool) engine.Result {
	res := *was
	res.Reject, res.Log, res.NAudits = false, false, 0
	switch {
	case was.Reason == engine.ReasonClear && answer:
		res.Verdict, res.Reason = engine.Protect, engine.ReasonFlow
	case was.Reason == engine.ReasonClear:
	case was.Reason == engine.ReasonNoSA:
		res.Verdict, res.Reason = engine.Protect, engine.ReasonNeverOpened
	default:
		res.Verdict, res.Reason = engine.Discard, engine.ReasonNeverOpened
	}
	return res
}

// learn keeps what the engine's answer tells of the flow.
func (r *replayer) learn(row *flowRow, side uint8, in *engine.Input, res *engine.Result) {
	p := &in.Packet
	if p.LaterFragment() {
		return
	}
	syn := p.Protocol == packet.TCP && p.TCPFlags&(packet.SYN|packet.ACK) == packet.SYN
	if res.Verdict != engine.Discard {
		if row.refused, row.unseen = nil, false; p.HasICMP && !isEcho(p) {
			return // no flow: each is judged by itself
		}
		row.open = row.open || res.NewFlow || res.Established
		if res.NewFlow && !answers(p) {
			row.opener = side
		}
		return
	}
	refused, unseen := false, false
	switch res.Reason {
	case engine.ReasonRule, engine.ReasonDefault, engine.ReasonNoSA:
		refused = true // there is no flow: else it had answered
	case engine.ReasonClear:
		refused = syn || !row.open
	case engine.ReasonTCPState:
		unseen = answers(p) && !row.open && row.refused == nil
	}
	switch {
	case unseen:
		row.opener = 1 - side
	case refused && answers(p): // an answer that the rules were asked about
		return
	case refused:
		row.opener = side
		row.until = in.Now + int64(r.engine.AnswersWithin(p.Protocol))
		if p.Protocol == packet.UDP && (p.Dst.IsMulticast() || p.Dst == broadcast) {
			remember(&r.refusals.groups, groupQuestion{p.Src, p.SrcPort, p.DstPort, in.Dir == engine.Forward}, row)
		}
	default:
		return
	}
	was := *res
	row.open, row.refused, row.unseen = false, &was, unseen
}

// hangsOn gives the flow that a packet of another row speaks of or answers to, of
// which the packet that would have opened it was refused, if not for good; nil if
// there is none.
func (r *replayer) hangsOn(in *engine.Input) *flowRow {
	p := &in.Packet
	forward := in.Dir == engine.Forward
	switch {
	case p.Protocol == packet.UDP:
		return r.refusals.groups[groupQuestion{p.Dst, p.DstPort, p.SrcPort, forward}]
	case !p.HasICMP:
		return nil
	}
	var about packet.Packet
	if question, ok := questionOf(p.Protocol, p.ICMPType); ok {
		about = *p
		about.Src, about.Dst, about.ICMPType = p.Dst, p.Src, question
		if !forward {
			return r.flows.refused(&about, engine.Out-in.Dir)
		}
		return r.flows.refused(&about, in.Dir)
	}
	if !p.ICMPError() || p.Quoted(&about) != packet.OK || about.LaterFragment() {
		return nil
	}
	if row := r.flows.refused(&about, engine.Forward); row != nil || forward {
		return row
	}
	return r.flows.refused(&about, engine.Out-in.Dir)
}

// refused gives the row of a packet that crosses the host in a direction, if it
// was refused.
func (f *flowRows) refused(p *packet.Packet, dir engine.Direction) *flowRow {
	k, side := rowKeyOf(p, dir)
	if row := f.rows[k]; row != nil && row.refused != nil && side == row.opener {
		return row
	}
	return nil
}

// questionOf gives the ICMP message that one is the answer to, of those that are
// judged one by one (RFC 792, RFC 950 appendix I, RFC 4620 section 4).
func questionOf(protocol, typ uint8) (question uint8, ok bool) {
	switch {
	case protocol == packet.ICMP && (typ == 14 || typ == 16 || typ == 18):
		return typ - 1, true
	case protocol == packet.ICMPv6 && typ == 140:
		return 139, true
	}
	return 0, false
}

func pieceOf(p *packet.Packet) piece {
	return piece{p.Src, p.Dst, p.FragID, p.Protocol}
}

// remember adds to a map that may be nil, and keeps it small.
func remember[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil || len(*m) == maxRefusals {
		*m = map[K]V{}
	}
	(*m)[k] = v
}
