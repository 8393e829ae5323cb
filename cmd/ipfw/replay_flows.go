package main

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
)

// flowRows counts what became of each flow of a capture, for the report. It
// is no judge: the engine keeps its own flows.
type flowRows struct {
	rows map[flowRowKey]*flowRow
	// lost are packets of flows for which there was no row left.
	lost uint64
}

// maxFlowRows bounds the memory of a report to some hundred megabytes.
const maxFlowRows = 1 << 20

// flowRowKey is the same for both directions of a flow; packets of which each
// is judged by itself have a row for each direction.
type flowRowKey struct {
	a, b         [16]byte
	aPort, bPort uint16
	proto        uint8
	fragment     bool // later fragments have no ports: a row of their own
	path         engine.Direction
	bAsks        bool // echo: the second end asked
}

// flowRow is one flow, written as its first packet.
type flowRow struct {
	dir              engine.Direction
	proto            uint8
	src, dst         netip.Addr
	srcPort, dstPort uint16
	icmp             bool
	fragment         bool
	midStream        bool // TCP, and the first packet was no SYN
	outcomes         []flowOutcome
	opening
}

// flowOutcome is what became of some packets of a flow.
type flowOutcome struct {
	verdict        engine.Verdict // what policy says: protect also when dropped for want of an SA
	reason         engine.Reason
	rule           int32
	asked          engine.Direction // whose default it was, when rule is the default
	packets, bytes uint64
}

func newFlowRows() *flowRows { return &flowRows{rows: map[flowRowKey]*flowRow{}} }

// find gives the row of a packet's flow, a new one for its first packet, nil when
// there is none left for it; and which end of it has sent the packet.
func (f *flowRows) find(in *engine.Input) (row *flowRow, side uint8) {
	k, side := rowKeyOf(&in.Packet, in.Dir)
	row = f.rows[k]
	if row == nil {
		if len(f.rows) == maxFlowRows {
			f.lost++
			return nil, side
		}
		row = rowOf(in)
		row.opener = side
		if answers(&in.Packet) {
			row.opener = 1 - side
		}
		f.rows[k] = row
	}
	return row, side
}

// rowKeyOf gives the row of a packet that crosses the host in a direction, and
// which end has sent it: 0 is a.
func rowKeyOf(p *packet.Packet, dir engine.Direction) (k flowRowKey, side uint8) {
	sp, dp := p.SrcPort, p.DstPort
	if p.HasICMP {
		sp, dp = icmpPorts(p)
	}
	k = flowRowKey{a: p.Src.As16(), b: p.Dst.As16(), aPort: sp, bPort: dp, proto: p.Protocol, fragment: p.LaterFragment()}
	alone := p.HasICMP && !isEcho(p)
	if alone || dir == engine.Forward {
		k.path = dir
	}
	asker := k.a
	if p.HasICMP && answers(p) {
		asker = k.b
	}
	if c := bytes.Compare(k.a[:], k.b[:]); !alone && (c > 0 || c == 0 && k.aPort > k.bPort) {
		k.a, k.b, k.aPort, k.bPort = k.b, k.a, k.bPort, k.aPort
		side = 1
	}
	// The engine tells the pings of one end from those of the other.
	k.bAsks = p.HasICMP && !alone && asker == k.b
	return k, side
}

// answers says of a packet, by itself, that it is an answer.
func answers(p *packet.Packet) bool {
	switch {
	case p.LaterFragment():
		return false
	case p.Protocol == packet.TCP:
		const both = packet.SYN | packet.ACK
		return p.TCPFlags&both == both
	case p.Protocol == packet.ICMP:
		return p.ICMPType == 0 // RFC 792
	}
	return p.Protocol == packet.ICMPv6 && p.ICMPType == 129 // RFC 4443 section 4
}

// rowOf begins a row with its first packet.
func rowOf(in *engine.Input) *flowRow {
	p := &in.Packet
	row := &flowRow{
		dir: in.Dir, proto: p.Protocol, src: p.Src, dst: p.Dst, srcPort: p.SrcPort, dstPort: p.DstPort,
		icmp: p.HasICMP, fragment: p.LaterFragment(),
	}
	row.midStream = p.Protocol == packet.TCP && !row.fragment && p.TCPFlags&(packet.SYN|packet.ACK) != packet.SYN
	if p.HasICMP {
		row.srcPort = uint16(p.ICMPType)<<8 | uint16(p.ICMPCode)
	}
	return row
}

// icmpPorts stand where other protocols have ports: an echo's identifier, so
// that question and answer are one row, or else type and code.
func icmpPorts(p *packet.Packet) (uint16, uint16) {
	if isEcho(p) {
		return p.EchoID, p.EchoID
	}
	n := uint16(p.ICMPType)<<8 | uint16(p.ICMPCode)
	return n, n
}

// isEcho says whether an ICMP packet is a question or its answer.
func isEcho(p *packet.Packet) bool {
	switch p.Protocol {
	case packet.ICMP:
		return p.ICMPType == 0 || p.ICMPType == 8 // RFC 792
	case packet.ICMPv6:
		return p.ICMPType == 128 || p.ICMPType == 129 // RFC 4443 section 4
	}
	return false
}

func (row *flowRow) count(in *engine.Input, r *engine.Result) {
	verdict, reason := policyVerdict(r), r.Reason
	switch reason {
	case engine.ReasonFlow, engine.ReasonDefault:
		reason = engine.ReasonRule // the rule, or its absence, says it
	}
	asked := r.Opened() // the direction whose rules decided
	for i := range row.outcomes {
		o := &row.outcomes[i]
		if o.verdict == verdict && o.reason == reason && o.rule == r.Rule && o.asked == asked {
			o.packets++
			o.bytes += uint64(in.Packet.Len)
			return
		}
	}
	row.outcomes = append(row.outcomes, flowOutcome{verdict, reason, r.Rule, asked, 1, uint64(in.Packet.Len)})
}

// policyVerdict is what policy says of a packet, whatever has become of this one:
// one that came in the clear, or that there can be no SA for, is dropped.
func policyVerdict(r *engine.Result) engine.Verdict {
	if r.Reason == engine.ReasonClear || r.Reason == engine.ReasonNoSA {
		return engine.Protect
	}
	return r.Verdict
}

// line writes the flow as `ipfw explain` takes it.
func (row *flowRow) line() string {
	proto := packet.ProtocolName(row.proto)
	if row.icmp {
		return fmt.Sprintf("%s %s %s %s -> %s", row.dir, proto,
			packet.ICMPTypeName(row.proto, uint8(row.srcPort>>8)), row.src, row.dst)
	}
	src, dst := row.src.String(), row.dst.String()
	switch {
	case row.fragment:
		return fmt.Sprintf("%s %s %s -> %s fragment", row.dir, proto, src, dst)
	case row.srcPort != 0 || row.dstPort != 0:
		src = netip.AddrPortFrom(row.src, row.srcPort).String()
		dst = netip.AddrPortFrom(row.dst, row.dstPort).String()
	}
	return fmt.Sprintf("%s %s %s -> %s", row.dir, proto, src, dst)
}

// outcomeRow is one line of the report.
type outcomeRow struct {
	*flowRow
	flowOutcome
}

// sorted gives every outcome of every flow: discards first, because they are
// what people look for, then protect, then bypass; the busiest first.
func (f *flowRows) sorted() []outcomeRow {
	var out []outcomeRow
	for _, row := range f.rows {
		for _, o := range row.outcomes {
			out = append(out, outcomeRow{row, o})
		}
	}
	order := func(v engine.Verdict) int { return [...]int{engine.Discard: 0, engine.Protect: 1, engine.Bypass: 2}[v] }
	slices.SortStableFunc(out, func(a, b outcomeRow) int {
		switch {
		case a.verdict != b.verdict:
			return order(a.verdict) - order(b.verdict)
		case a.packets != b.packets:
			if a.packets > b.packets {
				return -1
			}
			return 1
		case a.src != b.src:
			return a.src.Compare(b.src)
		case a.dst != b.dst:
			return a.dst.Compare(b.dst)
		case a.srcPort != b.srcPort:
			return int(a.srcPort) - int(b.srcPort)
		case a.dstPort != b.dstPort:
			return int(a.dstPort) - int(b.dstPort)
		case a.proto != b.proto:
			return int(a.proto) - int(b.proto)
		case a.fragment != b.fragment:
			if a.fragment {
				return 1
			}
			return -1
		}
		return int(a.dir) - int(b.dir) // outcomes of one flow stay in order
	})
	return out
}
