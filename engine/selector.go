package engine

import (
	"net/netip"
	"slices"
	"strings"
)

// field names one part of a selector.
type field uint8

// The fields, in the order in which a person would check them.
const (
	matches field = iota // nothing stands in the way
	fieldDirection
	fieldProtocol
	fieldICMP
	fieldLocal
	fieldRemote
	fieldLocalPort
	fieldRemotePort
	fieldInterface
	fieldDSCP
	fieldAnswers
	fieldRelated
)

// mismatch checks a query against a whole rule, field by field, and names the
// first field that stands in the way. It is the slow twin of the classifier,
// the second look at candidates that boxes cannot say all of, and what
// Explain tells.
func (r *Rule) mismatch(q *query) field {
	if q.dir == In && !r.In || q.dir == Out && !r.Out || q.dir == Forward && !r.Forward {
		return fieldDirection
	}
	if f := r.mismatchProtocol(q); f != matches {
		return f
	}
	if f := r.mismatchSides(q); f != matches {
		return f
	}
	return r.mismatchRest(q)
}

func (r *Rule) mismatchProtocol(q *query) field {
	switch {
	case len(r.Protocols) > 0 && !slices.Contains(r.Protocols, q.key.Proto):
		return fieldProtocol
	case len(r.LocalPorts)+len(r.RemotePorts) > 0 && !hasPorts(q.key.Proto):
		return fieldProtocol
	case len(r.ICMP) > 0 && !r.matchesICMP(q):
		return fieldICMP
	}
	return matches
}

func (r *Rule) mismatchRest(q *query) field {
	switch {
	case !r.matchesInterface(q):
		return fieldInterface
	case len(r.DSCP) > 0 && !slices.Contains(r.DSCP, q.dscp):
		return fieldDSCP
	case r.AnswersMulticast > 0 && !q.answers.within(r.AnswersMulticast):
		return fieldAnswers
	case len(r.RelatedTo) > 0 && !slices.Contains(r.RelatedTo, q.masterRule):
		return fieldRelated
	}
	return matches
}

// mismatchSides checks addresses and ports. On the forward path the rule's
// local side may be the source or the destination, unless it says who opens.
func (r *Rule) mismatchSides(q *query) field {
	a, b := netipAddr(q.key.Local, q.v6), netipAddr(q.key.Remote, q.v6)
	ap, bp := q.key.LocalPort, q.key.RemotePort
	if q.dir != Forward {
		return r.mismatchEnds(a, b, ap, bp)
	}
	asLocal, asRemote := fieldDirection, fieldDirection
	if r.OpenedBy != OpenedByRemote {
		asLocal = r.mismatchEnds(a, b, ap, bp)
	}
	if r.OpenedBy != OpenedByLocal {
		asRemote = r.mismatchEnds(b, a, bp, ap)
	}
	if asLocal == matches || asRemote == matches {
		return matches
	}
	return max(asLocal, asRemote) // what comes nearer to a match tells more
}

func (r *Rule) mismatchEnds(local, remote netip.Addr, localPort, remotePort uint16) field {
	switch {
	case !r.isLocal(local):
		return fieldLocal
	case !r.isRemote(remote):
		return fieldRemote
	case !inPorts(r.LocalPorts, localPort):
		return fieldLocalPort
	case !inPorts(r.RemotePorts, remotePort):
		return fieldRemotePort
	}
	return matches
}

func (r *Rule) matchesICMP(q *query) bool {
	for _, t := range r.ICMP {
		if t.Protocol == q.key.Proto && uint16(t.Type) == q.key.LocalPort>>8 &&
			(t.Code < 0 || uint16(t.Code) == q.key.LocalPort&0xff) {
			return true
		}
	}
	return false
}

// matchesInterface holds the rule's interfaces against the one the packet
// uses; on the forward path either one will do. Of what has come out of an SA
// the way out is not known when it arrives: then a rule that protects by that
// very SA matches, and the forward hook asks again.
func (r *Rule) matchesInterface(q *query) bool {
	switch {
	case len(r.Interfaces) == 0,
		q.dir != Out && r.Names(q.inIf), q.dir != In && r.Names(q.outIf):
		return true
	}
	return q.brought != "" && r.Action == Protect && r.With == q.brought
}

// Names says whether an interface is among those that the selector names.
func (s *Selector) Names(dev string) bool {
	return slices.ContainsFunc(s.Interfaces, func(pattern string) bool { return matchInterface(pattern, dev) })
}

// matchInterface compares a name with a pattern whose last "*" stands for any rest.
func matchInterface(pattern, name string) bool {
	if name == "" {
		return false
	}
	if rest, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(name, rest)
	}
	return pattern == name
}

func inAddrs(list []AddrRange, a netip.Addr) bool {
	if len(list) == 0 {
		return true
	}
	for i := range list {
		if list[i].Contains(a) {
			return true
		}
	}
	return false
}

// Contains says whether the address is of the range's family and in it.
func (r AddrRange) Contains(a netip.Addr) bool {
	return a.BitLen() == r.First.BitLen() && r.First.Compare(a) <= 0 && a.Compare(r.Last) <= 0
}

func inPorts(list []PortRange, port uint16) bool {
	if len(list) == 0 {
		return true
	}
	for _, r := range list {
		if r.First <= port && port <= r.Last {
			return true
		}
	}
	return false
}
