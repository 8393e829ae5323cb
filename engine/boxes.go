package engine

import (
	"slices"

	"github.com/ipfw/ipfw/engine/classify"
	"github.com/ipfw/ipfw/packet"
)

// maxBoxes bounds how many boxes one rule may become: lists of addresses,
// ports and protocols multiply. A rule over the bound gives up its longest
// list in the boxes, and its candidates are checked against the whole
// selector instead.
const maxBoxes = 1024

// side is one end of a selector as the classifier sees it.
type side struct {
	addrs []AddrRange
	ports []PortRange
}

// span is a range of addresses in the classifier's form.
type span struct{ first, last classify.Addr }

// appendBoxes adds a rule to the tables of its directions. It reports whether
// the boxes say all that the rule's selector says.
func appendBoxes(out *[directionCount][2][]classify.Box, r *Rule, index int32) bool {
	all := len(r.Interfaces) == 0 && len(r.DSCP) == 0 && len(r.RelatedTo) == 0 && r.AnswersMulticast == 0
	for d := range out {
		for family := range out[d] {
			boxes, exact := r.Boxes(Direction(d), family == 1, index)
			out[d][family] = append(out[d][family], boxes...)
			all = all && exact
		}
	}
	return all
}

// Boxes gives the packets of one direction and address family that the rule
// speaks of, as boxes with the rule's index; on the forward path Local is the
// source. They say nothing of interfaces, DSCP, RelatedTo and AnswersMulticast. When exact is false, the
// rule has more combinations than are worth writing out, and the boxes hold
// more packets than the rule does.
func (r *Rule) Boxes(d Direction, v6 bool, index int32) (boxes []classify.Box, exact bool) {
	local := side{r.Local, r.LocalPorts}
	remote := side{r.Remote, r.RemotePorts}
	exact = true
	add := func(a, b side) {
		some, ok := boxesOf(&r.Selector, a, b, v6, index)
		boxes, exact = append(boxes, some...), exact && ok
	}
	switch d {
	case In, Out:
		if d == In && r.In || d == Out && r.Out {
			add(local, remote)
		}
	case Forward:
		if r.Forward && r.OpenedBy != OpenedByRemote {
			add(local, remote)
		}
		if r.Forward && r.OpenedBy != OpenedByLocal {
			add(remote, local)
		}
	}
	return boxes, exact
}

// boxesOf multiplies the lists of a selector out for one family.
func boxesOf(s *Selector, a, b side, v6 bool, index int32) (boxes []classify.Box, exact bool) {
	as, all := spans(a.addrs, v6)
	bs, all2 := spans(b.addrs, v6)
	exact = all && all2
	protos := protocolRanges(s)
	aPorts, bPorts := portRanges(a.ports), portRanges(b.ports)
	if len(s.ICMP) > 0 {
		if len(as)*len(bs)*len(s.ICMP) > maxBoxes {
			as, bs, exact = hull(as), hull(bs), false
		}
		return icmpBoxes(s, as, bs, index), exact
	}
	for len(as)*len(bs)*len(protos)*len(aPorts)*len(bPorts) > maxBoxes {
		exact = false
		switch max(len(as), len(bs), len(protos), len(aPorts), len(bPorts)) {
		case len(as):
			as = hull(as)
		case len(bs):
			bs = hull(bs)
		case len(aPorts):
			aPorts = []PortRange{{0, 65535}}
		case len(bPorts):
			bPorts = []PortRange{{0, 65535}}
		default:
			protos = [][2]uint8{{0, 255}}
		}
	}
	for _, x := range as {
		for _, y := range bs {
			for _, pr := range protos {
				for _, xp := range aPorts {
					for _, yp := range bPorts {
						boxes = append(boxes, classify.Box{
							LocalFirst: x.first, LocalLast: x.last, RemoteFirst: y.first, RemoteLast: y.last,
							LocalPortFirst: xp.First, LocalPortLast: xp.Last, RemotePortFirst: yp.First, RemotePortLast: yp.Last,
							ProtoFirst: pr[0], ProtoLast: pr[1], Rule: index,
						})
					}
				}
			}
		}
	}
	return boxes, exact
}

// icmpBoxes are the boxes of a selector with ICMP types, which stand where
// ports stand for others (see query).
func icmpBoxes(s *Selector, as, bs []span, index int32) (boxes []classify.Box) {
	if len(s.LocalPorts)+len(s.RemotePorts) > 0 {
		return nil // no packet has both
	}
	for _, t := range s.ICMP {
		if len(s.Protocols) > 0 && !slices.Contains(s.Protocols, t.Protocol) {
			continue
		}
		first, last := uint16(t.Type)<<8, uint16(t.Type)<<8|0xff
		if t.Code >= 0 {
			first |= uint16(t.Code)
			last = first
		}
		for _, x := range as {
			for _, y := range bs {
				boxes = append(boxes, classify.Box{
					LocalFirst: x.first, LocalLast: x.last, RemoteFirst: y.first, RemoteLast: y.last,
					LocalPortFirst: first, LocalPortLast: last, RemotePortLast: 65535,
					ProtoFirst: t.Protocol, ProtoLast: t.Protocol, Rule: index,
				})
			}
		}
	}
	return boxes
}

// spans are the address ranges of one family; all of it if none is named at
// all, and none if only the other family is named. Of more than maxBoxes it gives
// the one range that holds them, and exact is false.
func spans(list []AddrRange, v6 bool) (out []span, exact bool) {
	if len(list) == 0 {
		s := span{last: classify.Addr{Lo: 1<<32 - 1}}
		if v6 {
			s.last = classify.Addr{Hi: ^uint64(0), Lo: ^uint64(0)}
		}
		return []span{s}, true
	}
	exact = true
	for i := range list {
		r := &list[i]
		if r.First.Is6() != v6 {
			continue
		}
		if len(out) == maxBoxes {
			out, exact = hull(out), false
		}
		out = append(out, span{classify.AddrFrom(r.First), classify.AddrFrom(r.Last)})
	}
	if !exact {
		out = hull(out)
	}
	return out, exact
}

// hull is the one range that holds all of the list.
func hull(list []span) []span {
	if len(list) == 0 {
		return nil
	}
	h := list[0]
	for _, s := range list[1:] {
		if s.first.Less(h.first) {
			h.first = s.first
		}
		if h.last.Less(s.last) {
			h.last = s.last
		}
	}
	return []span{h}
}

func portRanges(list []PortRange) []PortRange {
	if len(list) == 0 {
		return []PortRange{{0, 65535}}
	}
	return list
}

// protocolRanges are the protocols of a selector. A selector with ports and
// without protocols means those protocols that have ports.
func protocolRanges(s *Selector) [][2]uint8 {
	list := s.Protocols
	if len(s.LocalPorts)+len(s.RemotePorts) > 0 {
		if len(list) == 0 {
			list = []uint8{packet.TCP, packet.UDP, packet.UDPLite, packet.SCTP}
		}
		ported := make([]uint8, 0, len(list))
		for _, p := range list {
			if hasPorts(p) {
				ported = append(ported, p)
			}
		}
		list = ported
	} else if len(list) == 0 {
		return [][2]uint8{{0, 255}}
	}
	out := make([][2]uint8, len(list))
	for i, p := range list {
		out[i] = [2]uint8{p, p}
	}
	return out
}
