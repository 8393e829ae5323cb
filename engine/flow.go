package engine

import (
	"github.com/ipfw/ipfw/engine/classify"
	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
)

// A flow is what RFC 4301 section 4.4.1 calls an entry of the SPD cache: the
// packets of both directions between two ends, let through by the rule that
// let the first of them pass.
type flow struct {
	key        flowKey
	verdict    Verdict
	dir        Direction // of the packet that opened it
	opener     uint8     // the side of key that opened it: 0 is a, 1 is b
	dscp       uint8     // of the packet that opened it
	replied    bool      // both sides have been heard
	half       bool      // of TCP: it began with an answer, and the opener has not been heard
	outgoing   bool      // it was opened towards the remote side of its rule
	state      tcpState
	longest    [2]uint16 // of TCP, by side: the longest packet that it may send, in bytes; 0: nobody has said
	rule       int32
	generation uint32 // of the policy that last let it through
	inIf       string // interfaces that its opener's packets use, or last used
	outIf      string
	arrived    *[2]arrival // by side; nil: nothing has come out of an SA on the forward path
	master     *query      // what the flow asked that expects this one; nil: none does
	holder     *esp.Holder // who it is with, where the address does not tell

	expires  int64 // nanoseconds on the clock of Input.Now
	lastSeen int64
	started  int64
	ends     [2]tcpEnd // what each side has sent
	counts

	// See carried.go.
	offloaded bool     // the kernel was told to answer for the rest
	unbased   bool     // it began before it was first seen, and base is not known yet
	isn       uint32   // of TCP: the sequence number after the opener's SYN
	heard     int64    // when a packet of it last came up
	base      counts   // what the kernel had counted before the flow was first seen
	unended   *unended // nil: there are none

	older, newer *flow // in order of last use within the shard
}

// flowKey names a flow whichever way its packets run: end a is the smaller.
type flowKey struct {
	a, b         classify.Addr
	aPort, bPort uint16
	proto        uint8
	path         uint8 // see below
}

// Bits of flowKey.path.
const (
	pathIPv6    = 1 << 0
	pathForward = 1 << 1
	// pathBAsks tells the echo requests of end b from those of end a: a ping
	// lets the answers come back, and not the other side's own pings.
	pathBAsks = 1 << 2
)

// flowKeyOf gives the packet's flow and the side that sent it. Packets of
// which each is judged by itself, such as neighbour discovery, have none.
func flowKeyOf(in *Input) (k flowKey, side uint8, ok bool) {
	p := &in.Packet
	sp, dp := p.SrcPort, p.DstPort
	if p.HasICMP {
		if !isEcho(p) {
			return k, 0, false
		}
		sp, dp = p.EchoID, p.EchoID
	} else if p.Protocol == packet.ICMP || p.Protocol == packet.ICMPv6 {
		return k, 0, false
	}
	k, side = makeFlowKey(p, sp, dp, in.Dir)
	if p.HasICMP && (side == 1) != isEchoReply(p) {
		k.path |= pathBAsks
	}
	return k, side, true
}

func makeFlowKey(p *packet.Packet, sp, dp uint16, d Direction) (k flowKey, side uint8) {
	k = flowKey{a: classify.AddrFrom(p.Src), b: classify.AddrFrom(p.Dst), aPort: sp, bPort: dp, proto: p.Protocol}
	if k.b.Less(k.a) || k.a == k.b && k.bPort < k.aPort {
		k.a, k.b, k.aPort, k.bPort = k.b, k.a, k.bPort, k.aPort
		side = 1
	}
	if p.Version == 6 {
		k.path = pathIPv6
	}
	if d == Forward {
		k.path |= pathForward
	}
	return k, side
}

// openingDirection is the direction of the packet that opened a flow, told
// from one of its packets.
func openingDirection(in *Input) Direction {
	if !in.Reply || in.Dir == Forward {
		return in.Dir
	}
	return 1 - in.Dir // In for Out, Out for In
}

// remember keeps of the opening packet what a later lookup needs. A reply
// uses the interfaces the other way round.
func (f *flow) remember(in *Input) {
	f.dscp = in.Packet.DSCP()
	f.inIf, f.outIf, f.master = in.InIf, in.OutIf, in.master
	if in.Reply {
		f.inIf, f.outIf = f.outIf, f.inIf
	}
}

// isWith says that a packet that came out of an SA is of the peer that the flow
// is with. Peers behind one NAT may have the same addresses and ports; the flow
// is whose it was first, for as long as that peer has an SA (RFC 3948 section 5.2).
func (f *flow) isWith(in *Input) bool {
	if in.SA == "" || in.Holder == nil || in.Holder == f.holder {
		return true
	}
	if f.holder.Here() {
		return false
	}
	f.holder = in.Holder
	return true
}

// with says who a packet that leaves goes to.
func (in *Input) with(f *flow) {
	if in.SA == "" && f.holder != nil {
		in.Holder = f.holder
	}
}

// leaves says whether a packet of the flow goes towards the remote side.
func (f *flow) leaves(in *Input, side uint8) bool {
	if f.key.path&pathForward == 0 {
		return in.Dir == Out
	}
	return (side == f.opener) == f.outgoing
}

// query is the question that the flow's opening packet asked.
func (f *flow) query() query {
	k := &f.key
	q := query{dir: f.dir, v6: k.path&pathIPv6 != 0, dscp: f.dscp, inIf: f.inIf, outIf: f.outIf, master: f.master}
	src, dst, sp, dp := k.a, k.b, k.aPort, k.bPort
	if f.opener == 1 {
		src, dst, sp, dp = dst, src, dp, sp
	}
	q.key.Proto = k.proto
	switch k.proto {
	case packet.ICMP:
		sp, dp = echoRequest<<8, echoRequest<<8
	case packet.ICMPv6:
		sp, dp = echoRequest6<<8, echoRequest6<<8
	}
	if f.dir == In {
		src, dst, sp, dp = dst, src, dp, sp
	}
	q.key.Local, q.key.LocalPort, q.key.Remote, q.key.RemotePort = src, sp, dst, dp
	return q
}

// redecide looks a flow up again after a reload, when in comes, and keeps the
// answer in it.
func (s *spd) redecide(f *flow, in *Input) Result {
	q := f.query()
	if in.brought() && f.outIf == "" {
		q.brought = in.SA
	}
	r := s.again(&q, f.half)
	f.decide(s, &q, &r)
	f.generation = s.generation
	return r
}

// again looks up a flow that is open already; half is of the flow.
func (s *spd) again(q *query, half bool) Result {
	r := s.lookup(q, 0, again)
	if half && r.Verdict == Bypass && !s.halfOpen(r.Rule) {
		return Result{Reason: ReasonTCPState, Rule: NoRule, opened: r.opened}
	}
	return r
}

// decide keeps the answer to the question q that the flow's opener asks.
func (f *flow) decide(s *spd, q *query, r *Result) {
	if r.Verdict == Protect && f.dir == Forward {
		f.outgoing = s.leaves(q, f.verdict != Protect || f.outgoing, r)
	}
	f.verdict, f.rule = r.Verdict, r.Rule
}

// start sets a new flow's state from its first packet.
func (f *flow) start(p *packet.Packet, side uint8, now int64, tracked bool, t *timeouts) {
	f.started = now
	f.replied, f.unbased = tracked && !f.half, tracked
	if p.Protocol == packet.TCP {
		f.isn = p.Seq + 1
		f.state = tcpNone
		if tracked {
			f.state = tcpEstablished
		}
	}
	f.update(p, side, now, t)
}

// update counts a packet of the flow and moves its state and its end on.
func (f *flow) update(p *packet.Packet, side uint8, now int64, t *timeouts) {
	f.packets[side]++
	f.bytes[side] += uint64(p.Len)
	f.lastSeen = now
	if side != f.opener {
		f.replied = !f.half
	} else if f.half {
		f.half, f.replied = false, true
	}
	if p.Protocol == packet.TCP {
		f.updateTCP(p, side)
	}
	f.expires = now + f.timeout(t)
}

// Timeouts of flows that are not TCP, in nanoseconds; those of Linux's
// connection tracking, because people know them.
const (
	second         = int64(1e9)
	timeoutICMP    = 30 * second
	timeoutUDP     = 30 * second
	timeoutUDPBoth = 120 * second
	timeoutOther   = 600 * second
)

// timeout is how long the flow is remembered after this packet.
func (f *flow) timeout(t *timeouts) int64 {
	switch f.key.proto {
	case packet.TCP:
		return f.tcpTimeout(t)
	case packet.ICMP, packet.ICMPv6:
		return t.icmp
	case packet.UDP, packet.UDPLite:
		if f.replied {
			return t.udpBoth
		}
		return t.udp
	}
	return t.rest
}
