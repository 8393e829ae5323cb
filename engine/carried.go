package engine

import (
	"net/netip"
	"time"

	"github.com/ipfw/ipfw/packet"
)

// This file is about flows that the kernel answers for. The engine has let
// such a flow through; the kernel goes on doing so, as long as the policy is
// the one that decided, and shows no more packets of it. In the same way it
// drops the rest of a flow that a new policy has cut. It tells from time to
// time what has come, and when the flow has ended: for these flows the
// kernel's connection tracking is the truth about how they stand.
//
//	first packet --> open --> Result.Offload --> kernel --> Carried --> counters, state
//
// The entry of an offloaded flow is there for its counters. Whether it is
// forgotten does not change what passes: a packet that comes up after all,
// because the policy has changed, is looked up like one of a flow that an
// earlier daemon let through. Only a flow that the engine remembers is cut by
// the kernel, because only of such a one it is known by which interfaces it
// was opened; packets of others come up, and each is discarded.

// Carried is what the kernel tells of one offloaded flow: totals since it
// began.
type Carried struct {
	Protocol uint8
	Forward  bool
	// Source is the side that opened the flow, Dest the other, as the rules
	// see them: behind destination and before source address translation.
	// The port is the identifier for ICMP echo.
	Source, Dest netip.AddrPort
	// Packets and Bytes are what the opener and the other side have sent.
	// Without Counted they are not known.
	Packets, Bytes [2]uint64
	Counted        bool
	Replied        bool          // the other side has been heard
	State          CarriedState  // of TCP
	Expires        time.Duration // from now, if nothing comes
	Ended          bool          // the kernel has forgotten the flow
}

// CarriedState is Linux's TCP_CONNTRACK_* number.
type CarriedState uint8

var carriedStates = [...]tcpState{
	tcpNone, tcpSynSent, tcpSynReceived, tcpEstablished, tcpFinWait,
	tcpFinWait, tcpClosing, tcpTimeWait, tcpClosed, tcpSynReceived,
}

// carriedGrace is how long an offloaded flow is remembered at least with no
// word from the kernel, which is asked much more often.
const carriedGrace = 180 * second

// newConnection is how long after a packet of an offloaded flow another one
// that the kernel has not marked may be one that was queued before the mark.
const newConnection = second

// offload decides whether the kernel may answer for the rest of the flow,
// whose packet has just been let through, and gives the policy's generation
// that says so. Where flows are told apart by ports that connection tracking
// may not know, it may not.
func (f *flow) offload(s *spd, in *Input, r *Result) uint32 {
	f.heard = in.Now
	if !in.Offloadable || in.Packet.Fragment || f.verdict != Bypass || r.Verdict != Bypass || in.asks ||
		f.key.proto == packet.SCTP || f.key.proto == packet.UDPLite {
		return 0
	}
	f.offloaded = true
	f.expires = max(f.expires, in.Now+carriedGrace)
	return s.generation
}

// cut keeps a flow that has been let through and that the policy now in force
// discards, if that is all it says: then the kernel may discard the rest. What
// the kernel has carried meanwhile under the old policy is not the new rule's.
// A policy that names interfaces may let it pass by another one.
func (f *flow) cut(s *spd, r *Result) bool {
	if s.interfaces || f.half || r.Log || r.Reject || f.key.proto != packet.TCP && f.key.proto != packet.UDP {
		return false
	}
	f.unbased = true
	return true
}

// refuse discards a packet of a flow that was cut.
func (f *flow) refuse(s *spd, in *Input, side uint8) Result {
	r := Result{Reason: f.reason(), Rule: f.rule, opened: f.dir}
	f.update(&in.Packet, side, in.Now, &s.timeouts)
	f.heard = in.Now
	if in.Offloadable && in.Tracked && in.SA == "" {
		f.offloaded = true
		r.Offload = s.generation
	}
	f.expires = max(f.expires, in.Now+carriedGrace)
	return r
}

// reason is why a packet of the flow has the flow's verdict.
func (f *flow) reason() Reason {
	switch {
	case f.verdict != Discard:
		return ReasonFlow
	case f.rule == DefaultRule:
		return ReasonDefault
	}
	return ReasonRule
}

// resume takes up a flow that the kernel has carried meanwhile.
func (f *flow) resume(in *Input) {
	if !f.offloaded || !in.Tracked {
		return
	}
	if p := &in.Packet; p.Protocol == packet.TCP && p.TCPFlags&packet.SYN == 0 && f.state < tcpEstablished {
		f.state = tcpEstablished
	}
}

// isAnother says whether a packet opens another connection between the ends of
// an offloaded one, whose end the kernel has not told yet: the kernel knows
// nothing of having let it through.
func (f *flow) isAnother(in *Input, side uint8) bool {
	if !f.offloaded || in.Tracked || in.Reply || side != f.opener {
		return false
	}
	p := &in.Packet
	if p.Protocol != packet.TCP {
		return in.Now-f.heard > newConnection
	}
	return p.TCPFlags&(packet.SYN|packet.ACK) == packet.SYN &&
		(p.Seq+1 != f.isn || in.Now-f.heard > newConnection)
}

// follows makes the flow remember that the kernel has still to tell the end of
// one that had the same ends.
func (f *flow) follows(old *flow) {
	f.unended = old.unended
	if !old.offloaded {
		return
	}
	if f.unended == nil {
		f.unended = new(unended)
	}
	f.unended.ends++
	for i := range f.unended.packets {
		f.unended.packets[i] += old.packets[i] - old.base.packets[i]
		f.unended.bytes[i] += old.bytes[i] - old.base.bytes[i]
	}
}

// counts are packets and bytes by side.
type counts struct{ packets, bytes [2]uint64 }

// unended are flows between the same ends whose end the kernel has not told
// yet, and what is known of them.
type unended struct {
	ends uint32
	counts
}

// Carried takes in what the kernel tells of a flow. now is the clock of
// Input.Now.
func (e *Engine) Carried(now int64, c *Carried) {
	ends := Ends{c.Protocol, c.Source, c.Dest}
	key, side := ends.key(c.Forward)
	if side == 1 && (c.Protocol == packet.ICMP || c.Protocol == packet.ICMPv6) {
		key.path |= pathBAsks
	}
	s := e.spd.Load()
	shard := e.flows.shard(&key)
	shard.Lock()
	defer shard.Unlock()
	f := shard.flows[key]
	if f == nil || !f.offloaded {
		return
	}
	if f.generation != s.generation {
		if r := s.redecide(f, &Input{}); r.Verdict == Discard && !f.cut(s, &r) {
			shard.remove(f)
			return
		}
	}
	var total counts
	total.packets[side], total.packets[1-side] = c.Packets[0], c.Packets[1]
	total.bytes[side], total.bytes[1-side] = c.Bytes[0], c.Bytes[1]
	if c.Ended && f.unended != nil {
		e.credit(s, f, f.unended.missing(&total))
		if f.unended.ends--; f.unended.ends == 0 {
			f.unended = nil
		}
		return
	}
	if c.Counted {
		d := f.missing(&total)
		if d.packets != [2]uint64{} && !c.Ended {
			f.lastSeen = now // more or less: since the kernel was last asked
		}
		e.credit(s, f, d)
	}
	if f.state != tcpNone && c.State != 0 && int(c.State) < len(carriedStates) {
		f.state = carriedStates[c.State]
	}
	f.replied = f.replied || c.Replied
	if c.Ended {
		if f.expires = f.outlives(&s.timeouts); f.expires <= now {
			shard.remove(f)
			return
		}
		// The kernel counts anew from its next packet on, and so does the flow.
		f.offloaded, f.unbased, f.counts, f.base = false, false, counts{}, counts{}
		return
	}
	f.expires = now + max(int64(c.Expires), carriedGrace)
}

// missing gives what the kernel has counted and the flow has not, and adds it.
// The kernel counts from the beginning of the connection, the flow from when
// it was first seen.
func (f *flow) missing(total *counts) (d counts) {
	for i := range total.packets {
		if f.unbased {
			f.base.packets[i] = max(total.packets[i], f.packets[i]) - f.packets[i]
			f.base.bytes[i] = max(total.bytes[i], f.bytes[i]) - f.bytes[i]
		}
		d.packets[i] = grow(&f.packets[i], total.packets[i], f.base.packets[i])
		d.bytes[i] = grow(&f.bytes[i], total.bytes[i], f.base.bytes[i])
	}
	f.unbased = false
	return d
}

// grow lifts n to total without base, and gives by how much.
func grow(n *uint64, total, base uint64) uint64 {
	if total < base || total-base <= *n {
		return 0
	}
	d := total - base - *n
	*n += d
	return d
}

// missing gives what the kernel has counted of a flow that is over beyond what
// was known of it.
func (u *unended) missing(total *counts) (d counts) {
	for i := range total.packets {
		known := min(u.packets[i], total.packets[i])
		u.packets[i] -= known
		d.packets[i] = total.packets[i] - known
		known = min(u.bytes[i], total.bytes[i])
		u.bytes[i] -= known
		d.bytes[i] = total.bytes[i] - known
	}
	return d
}

// credit counts for a flow's rule what the kernel has carried.
func (e *Engine) credit(s *spd, f *flow, d counts) {
	packets, bytes := d.packets[0]+d.packets[1], d.bytes[0]+d.bytes[1]
	if packets == 0 && bytes == 0 {
		return
	}
	e.beside.Lock()
	e.reasons[f.reason()].Add(packets)
	e.beside.carried += packets
	e.beside.Unlock()
	var c *counter
	switch {
	case f.rule >= 0:
		c = &s.state[f.rule].counter
	case f.rule == DefaultRule:
		c = s.defaults[f.dir]
	default:
		return
	}
	c.packets.Add(packets)
	c.bytes.Add(bytes)
}
