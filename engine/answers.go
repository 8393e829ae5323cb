package engine

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"

	"github.com/ipfw/ipfw/packet"
)

// This file is about rules with AnswersMulticast. What this host asks a multicast
// group or everybody on a link is answered from the neighbours' own addresses
// (LLMNR, SSDP, legacy unicast of mDNS, NetBIOS), so the answers are of no flow:
//
//	question, out:  local:port -> group, by a device --> questions
//	answer, in:     neighbour  -> local:port, by the same device, soon --> the rule
//
// Each answer is judged by itself. It opens no flow and is not offloaded, so
// nothing stays open when the time is over. Questions are not offloaded either:
// the time begins anew with each.

// questions remembers from which addresses and ports this host has lately asked a
// group, and by which devices. It has room for 1,024; one more takes the place
// of an old one, whose answers are then not let in. Only this host's own packets
// fill it.
type questions struct {
	seed maphash.Seed
	sets [questionSets]struct {
		sync.Mutex
		asked [questionWays]question
	}
}

const (
	questionSets = 256
	questionWays = 4
)

// question is where answers may come to. The zero value is nobody's.
type question struct {
	local netip.AddrPort
	dev   string
	when  int64 // of the last one, on the clock of Input.Now
}

// note remembers when a question was asked.
func (q *questions) note(local netip.AddrPort, dev string, now int64) {
	set := &q.sets[q.at(local, dev)]
	set.Lock()
	defer set.Unlock()
	oldest := 0
	for i := range set.asked {
		x := &set.asked[i]
		if x.local == local && x.dev == dev {
			oldest = i
			break
		}
		if x.when < set.asked[oldest].when {
			oldest = i
		}
	}
	set.asked[oldest] = question{local, dev, now}
}

// last says when a question was last asked.
func (q *questions) last(local netip.AddrPort, dev string) (when int64, ok bool) {
	set := &q.sets[q.at(local, dev)]
	set.Lock()
	defer set.Unlock()
	for i := range set.asked {
		if x := &set.asked[i]; x.local == local && x.dev == dev {
			return x.when, true
		}
	}
	return 0, false
}

func (q *questions) at(local netip.AddrPort, dev string) uint64 {
	return (maphash.Comparable(q.seed, local) ^ 3*maphash.String(q.seed, dev)) % questionSets
}

// sinceQuestion is how long ago this host asked a group what a packet may answer,
// in nanoseconds and one more. 0, the zero value: it answers nothing.
type sinceQuestion int64

// within says whether an answer is in time.
func (a sinceQuestion) within(t time.Duration) bool { return a > 0 && int64(a)-1 <= int64(t) }

// keepQuestions makes room for questions if a rule asks for it. A policy without
// such a rule forgets them.
func (s *spd) keepQuestions(old *spd) {
	for i := range s.policy.Rules {
		if s.policy.Rules[i].AnswersMulticast > 0 {
			if old != nil && old.questions != nil {
				s.questions = old.questions
			} else {
				s.questions = &questions{seed: maphash.MakeSeed()}
			}
			return
		}
	}
}

// mayRelate says of a packet that it may be a question or an answer to one.
func (s *spd) mayRelate(in *Input) bool {
	p := &in.Packet
	return s.questions != nil && p.Protocol == packet.UDP && in.SA == "" && !p.LaterFragment()
}

// relate finds out whether a packet is a question to a group. What it may be an
// answer to is looked for when the rules are asked: see findQuestion.
func (e *Engine) relate(s *spd, in *Input) {
	p := &in.Packet
	in.asks, in.answers = in.Dir == Out && s.mayRelate(in) &&
		in.OutIf != loopback && isHost(p.Src) && e.isGroup(in.OutIf, p.Dst), 0
}

// findQuestion finds out what a packet that belongs to no flow may be an answer to.
func (e *Engine) findQuestion(s *spd, in *Input) {
	if in.Dir != In || !s.mayRelate(in) {
		return
	}
	p := &in.Packet
	when, ok := s.questions.last(netip.AddrPortFrom(p.Dst, p.DstPort), in.InIf)
	if ok && e.isNeighbor(in.InIf, p.Src) {
		in.answers = sinceQuestion(max(0, in.Now-when) + 1)
	}
}

// asked notes a question that passes.
func (s *spd) asked(in *Input, r *Result) {
	if in.asks && r.Verdict == Bypass && s.questions != nil {
		p := &in.Packet
		s.questions.note(netip.AddrPortFrom(p.Src, p.SrcPort), in.OutIf, in.Now)
	}
}

// answered says that the rule that decided lets in answers to a question, of which
// each is judged by itself.
func (s *spd) answered(r *Result) bool {
	return r.Rule >= 0 && s.policy.Rules[r.Rule].AnswersMulticast > 0
}

// speaksToAnswerer says of a UDP packet that this host sends, and that the kernel
// takes for a reply, that what came before may have been an answer. The kernel's
// connection tracking remembers an answer as a connection that the neighbour has
// opened. For policy it opened nothing: what this host sends there opens a flow.
func (s *spd) speaksToAnswerer(in *Input) bool {
	if s.questions == nil || !in.Reply || in.Dir != Out || in.Packet.Protocol != packet.UDP || in.SA != "" {
		return false
	}
	q := turned(in)
	if r := s.lookup(&q, in.Now, again); r.Verdict != Discard {
		return false // of one that a rule let the neighbour open
	}
	q.answers = 1
	r := s.lookup(&q, in.Now, again)
	return s.answered(&r)
}

// isGroup says whether a packet to an address that leaves by a device goes to a
// multicast group or to everybody (RFC 919: 255.255.255.255, or the last address
// of a network that the device is in).
func (e *Engine) isGroup(dev string, a netip.Addr) bool {
	switch {
	case a.IsMulticast(), a == broadcast:
		return true
	case !a.Is4() || e.options.Networks == nil || e.options.IsLocal != nil && !e.options.IsLocal(a):
		return false // and no list was gone through
	}
	for _, n := range e.options.Networks(dev) {
		if n.Contains(a) && isDirected(n, a) {
			return true
		}
	}
	return false
}

// isNeighbor says whether an address is one host's, not ours, in a network that
// the device is in: the test of RFC 6762 section 11.
func (e *Engine) isNeighbor(dev string, a netip.Addr) bool {
	if !isHost(a) || e.options.Networks == nil || e.options.IsLocal != nil && e.options.IsLocal(a) {
		return false
	}
	for _, n := range e.options.Networks(dev) {
		if n.Contains(a) && !isDirected(n, a) && (a.Is6() || n.Bits() > 30 || a != n.Masked().Addr()) {
			return true
		}
	}
	return false
}

// isHost says that an address may be one host's on a link.
func isHost(a netip.Addr) bool { return a.IsGlobalUnicast() || a.IsLinkLocalUnicast() }

// isDirected says that an address in a network is its broadcast address (RFC 1812
// section 5.3.5.2). Networks of two hosts have none (RFC 3021).
func isDirected(n netip.Prefix, a netip.Addr) bool {
	return a.Is4() && n.Bits() <= 30 && a == lastOf(n.Masked())
}
