package engine

import (
	"net/netip"
	"slices"

	"github.com/ipfw/ipfw/packet"
)

// This file is about flows that the kernel's connection tracking expects. A helper
// of the kernel reads in the packets of one connection, the master, that another
// is to come: the data of FTP and TFTP, the media of SIP. A rule with RelatedTo
// matches such a flow where one of the rules that it names lets the master through.
//
//	master --> helper --> expectation --> first packet, Expected
//	                                          | Options.Master: the ends of the master
//	RelatedTo <-- rule <-- its question <-- the master's own flow
//
// A flow remembers the question of its master and not the answer, so that each
// policy answers anew: one that does not let the master through, or lets it by a
// rule that is not named, ends what is expected of it. In doubt there is no master,
// and the rule does not match.

// Ends name a connection of the kernel's, as the rules see it: behind destination
// and before source address translation.
type Ends struct {
	Protocol     uint8
	Source, Dest netip.AddrPort // Source has opened it
}

// key gives the flow of the connection, and the side that has opened it.
func (n *Ends) key(forward bool) (k flowKey, side uint8) {
	p := packet.Packet{Version: 4, Protocol: n.Protocol, Src: n.Source.Addr(), Dst: n.Dest.Addr()}
	if p.Src.Is6() {
		p.Version = 6
	}
	dir := In
	if forward {
		dir = Forward
	}
	return makeFlowKey(&p, n.Source.Port(), n.Dest.Port(), dir)
}

// Relates says whether what the policy decides of a flow may depend on whether it
// is expected.
func (p *Policy) Relates() bool {
	return slices.ContainsFunc(p.Rules, func(r Rule) bool { return len(r.RelatedTo) > 0 })
}

// mastersInLine is how many masters a flow has at most, each expected of the next:
// RTP, H.245, Q.931 and RAS of H.323 are the longest line there is. Who could make
// it longer would make it hold memory.
const mastersInLine = 4

// findMaster looks for the flow that expects the packet's. An Input is used again
// for other packets: what was found for the last one is forgotten.
func (e *Engine) findMaster(s *spd, in *Input) {
	if in.master != nil && in.master.stated != "" {
		return
	}
	in.master = nil
	if !s.relates || e.options.Master == nil || !in.Expected && !in.Tracked {
		return
	}
	ends, ok := e.options.Master(in)
	if !ok {
		return
	}
	forward := in.Dir == Forward
	q, known := e.masterQuestion(in, &ends, forward)
	if !known {
		q, known = e.masterQuestion(in, &ends, !forward)
	}
	if !known && !in.Expected {
		q, known = e.earlierMaster(s, in, &ends)
	}
	if known && q.line() < mastersInLine {
		in.master = &q
	}
}

// masterQuestion gives the question of a master that is a flow which passes.
func (e *Engine) masterQuestion(in *Input, ends *Ends, forward bool) (q query, known bool) {
	key, _ := ends.key(forward)
	shard := e.flows.shard(&key)
	shard.Lock()
	defer shard.Unlock()
	f := shard.flows[key]
	if f == nil || f.expires <= in.Now || f.verdict != Bypass || f.half {
		return query{}, false
	}
	return f.query(), true
}

// earlierMaster makes the question of the master of a flow that an earlier ipfw had
// let through. By which interface it came nobody knows any more.
func (e *Engine) earlierMaster(s *spd, in *Input, ends *Ends) (q query, known bool) {
	if s.interfaces || s.marks || e.options.IsLocal == nil {
		return query{}, false
	}
	m := Input{Dir: in.Dir}
	m.Packet = packet.Packet{Version: in.Packet.Version, Protocol: ends.Protocol, HasPorts: hasPorts(ends.Protocol),
		Src: ends.Source.Addr(), SrcPort: ends.Source.Port(), Dst: ends.Dest.Addr(), DstPort: ends.Dest.Port()}
	if m.Dir != Forward {
		m.Dir = In
		if e.options.IsLocal(m.Packet.Src) {
			m.Dir = Out
		}
	}
	return queryOf(&m), true
}

// letThrough gives the name of the rule that lets a master through; none where no
// rule does.
func (s *spd) letThrough(master *query) string {
	if master.stated != "" {
		return master.stated
	}
	q := *master
	r := s.lookup(&q, 0, again)
	if r.Verdict != Bypass || r.Rule < 0 {
		return ""
	}
	return s.policy.Rules[r.Rule].Name
}

// line is how many masters a master has itself.
func (q *query) line() (n int) {
	for m := q.master; m != nil; m = m.master {
		n++
	}
	return n
}
