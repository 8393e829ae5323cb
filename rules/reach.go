package rules

import (
	"slices"
	"strings"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/engine/classify"
)

// maxPieces bounds how many pieces one rule is cut into while it is looked
// for a packet that can reach it; a rule that needs more is taken as reached.
const maxPieces = 4096

// reach finds rules that no packet can reach. It is exact: a rule is cut at
// the earlier rules until a packet is left that none of them takes, or
// nothing. Interfaces and DSCP are compared by the list, and never cut. Whether a
// helper expects a packet no packet shows: such rules take none away for sure.
type reach struct {
	rules  []engine.Rule
	boxes  [3][2][][]classify.Box // by direction, family and rule
	tables [3][2]*classify.Classifier
}

// newReach makes tables of the rules that take packets away from later ones:
// not those that only audit, let pass what is over a limit, take no more than
// answers to a question, or speak of what a helper expects.
func newReach(rules []engine.Rule) *reach {
	r := &reach{rules: rules}
	for d := range r.boxes {
		for f := range r.boxes[d] {
			var takers []classify.Box
			r.boxes[d][f] = make([][]classify.Box, len(rules))
			for i := range rules {
				b, exact := rules[i].Boxes(engine.Direction(d), f == 1, int32(i))
				r.boxes[d][f][i] = b
				if exact && !rules[i].Audit && rules[i].Limit == nil && rules[i].AnswersMulticast == 0 && len(rules[i].RelatedTo) == 0 {
					takers = append(takers, b...)
				}
			}
			r.tables[d][f] = classify.Build(takers, [2]classify.Family{classify.IPv4, classify.IPv6}[f])
		}
	}
	return r
}

// empty reports whether no packet matches the selector of rule i at all.
func (r *reach) empty(i int) bool {
	for d := range r.boxes {
		for f := range r.boxes[d] {
			if len(r.boxes[d][f][i]) > 0 {
				return false
			}
		}
	}
	return true
}

// takers gives the earlier rules, by index, that take every packet of rule i,
// or nil when a packet can reach it.
func (r *reach) takers(i int) []int {
	found := map[int]bool{}
	budget := maxPieces
	interfaces := r.rules[i].Interfaces
	if len(interfaces) == 0 {
		interfaces = []string{""}
	}
	for _, name := range interfaces {
		for _, dscp := range dscpOf(&r.rules[i]) {
			takes := func(e int) bool { return coversInterface(&r.rules[e], name) && coversDSCP(&r.rules[e], dscp) }
			for d := range r.boxes {
				for f := range r.boxes[d] {
					for _, b := range r.boxes[d][f][i] {
						if !r.taken(d, f, i, b, takes, found, &budget) {
							return nil
						}
					}
				}
			}
		}
	}
	var out []int
	for e := range found {
		out = append(out, e)
	}
	slices.Sort(out)
	return out
}

// taken reports whether earlier rules take all of a box. Each round asks for
// the first rule that takes the lowest packet of a piece, and goes on with
// what that rule leaves of the piece.
func (r *reach) taken(d, f, i int, b classify.Box, takes func(int) bool, found map[int]bool, budget *int) bool {
	pieces := []classify.Box{b}
	for len(pieces) > 0 {
		if *budget--; *budget < 0 {
			return false
		}
		p := pieces[len(pieces)-1]
		pieces = pieces[:len(pieces)-1]
		lowest := classify.Key{Local: p.LocalFirst, Remote: p.RemoteFirst,
			LocalPort: p.LocalPortFirst, RemotePort: p.RemotePortFirst, Proto: p.ProtoFirst}
		e := int32(0)
		for {
			e = r.tables[d][f].First(&lowest, e)
			if e < 0 || int(e) >= i {
				return false // this packet comes through
			}
			if takes(int(e)) {
				break
			}
			e++
		}
		found[int(e)] = true
		for k := range r.boxes[d][f][e] {
			if hole := &r.boxes[d][f][e][k]; hole.Holds(&lowest) {
				pieces = appendRest(pieces, p, hole)
				break
			}
		}
	}
	return true
}

// appendRest adds what is left of p without hole, which holds p's lowest
// packet: at most one piece beyond the hole in each of the five ranges.
func appendRest(out []classify.Box, p classify.Box, hole *classify.Box) []classify.Box {
	if hole.LocalLast.Less(p.LocalLast) {
		q := p
		q.LocalFirst, p.LocalLast = next(hole.LocalLast), hole.LocalLast
		out = append(out, q)
	}
	if hole.RemoteLast.Less(p.RemoteLast) {
		q := p
		q.RemoteFirst, p.RemoteLast = next(hole.RemoteLast), hole.RemoteLast
		out = append(out, q)
	}
	if hole.LocalPortLast < p.LocalPortLast {
		q := p
		q.LocalPortFirst, p.LocalPortLast = hole.LocalPortLast+1, hole.LocalPortLast
		out = append(out, q)
	}
	if hole.RemotePortLast < p.RemotePortLast {
		q := p
		q.RemotePortFirst, p.RemotePortLast = hole.RemotePortLast+1, hole.RemotePortLast
		out = append(out, q)
	}
	if hole.ProtoLast < p.ProtoLast {
		q := p
		q.ProtoFirst = hole.ProtoLast + 1
		out = append(out, q)
	}
	return out
}

// next is the address after a, which is not the last.
func next(a classify.Addr) classify.Addr {
	a.Lo++
	if a.Lo == 0 {
		a.Hi++
	}
	return a
}

// anyDSCP stands for a rule that says nothing of DSCP.
const anyDSCP = -1

func dscpOf(r *engine.Rule) []int {
	if len(r.DSCP) == 0 {
		return []int{anyDSCP}
	}
	out := make([]int, len(r.DSCP))
	for i, v := range r.DSCP {
		out[i] = int(v)
	}
	return out
}

func coversDSCP(r *engine.Rule, dscp int) bool {
	if dscp == anyDSCP {
		return len(r.DSCP) == 0 || len(r.DSCP) == 64
	}
	return len(r.DSCP) == 0 || slices.Contains(r.DSCP, uint8(dscp))
}

// coversInterface reports whether the rule speaks of every interface that the
// pattern stands for; "" stands for all.
func coversInterface(r *engine.Rule, pattern string) bool {
	if len(r.Interfaces) == 0 {
		return true
	}
	for _, have := range r.Interfaces {
		stem, glob := strings.CutSuffix(have, "*")
		if pattern != "" && (have == pattern || glob && strings.HasPrefix(pattern, stem)) {
			return true
		}
	}
	return false
}
