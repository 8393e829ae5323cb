// Package mix makes rule sets and packet headers that look like those of real
// access lists, firewalls and IP chains, for tests and benchmarks. It follows
// the idea of ClassBench (Taylor and Turner, "ClassBench: A Packet
// Classification Benchmark", IEEE INFOCOM 2005): prefixes drawn from few
// networks that nest, with a distribution of lengths for each kind; ports in
// five classes; headers taken from inside the rules, in runs whose length is
// Pareto distributed. The same arguments give the same sets on every machine.
//
// Limits: the distributions are of ClassBench's kind, not its seed files;
// figures taken with one do not compare with figures taken with the other.
package mix

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/ipfw/ipfw/engine/classify"
)

// Kind is the kind of policy that a set looks like.
type Kind uint8

// The kinds that ClassBench knows.
const (
	ACL      Kind = iota // access list: specific addresses, exact remote ports
	Firewall             // wildcards on one side or the other, many services
	IPChain              // between the two
	kinds
)

// Kinds are all of them.
var Kinds = [kinds]Kind{ACL, Firewall, IPChain}

// String gives a short name for tables.
func (k Kind) String() string {
	if k >= kinds {
		return fmt.Sprintf("Kind(%d)", uint8(k))
	}
	return [...]string{"acl", "fw", "ipc"}[k]
}

// Rules gives n different boxes for rules 0 to n-1, the specific before the
// general as people write them. It panics when the kind has no n different
// ones, which takes millions.
func Rules(kind Kind, n int, f classify.Family, seed uint64) []classify.Box {
	g := newGenerator(kind, n, f, seed)
	seen := make(map[classify.Box]bool, n)
	boxes := make([]classify.Box, 0, n)
	for tries := 0; len(boxes) < n; tries++ {
		if tries > 100*n+100000 {
			panic(fmt.Sprintf("mix: cannot find %d different rules of kind %v", n, kind))
		}
		if b := g.box(); !seen[b] {
			seen[b] = true
			boxes = append(boxes, b)
		}
	}
	slices.SortStableFunc(boxes, func(a, b classify.Box) int { return generality(&a) - generality(&b) })
	for i := range boxes {
		boxes[i].Rule = int32(i)
	}
	return boxes
}

// Trace gives n headers, each from inside a box, at its corners or between,
// in runs of the same header: most are short, a few are long.
func Trace(boxes []classify.Box, n int, seed uint64) []classify.Key {
	r := rand.New(rand.NewPCG(seed, 2))
	keys := make([]classify.Key, 0, n)
	for len(keys) < n && len(boxes) > 0 {
		b := &boxes[r.IntN(len(boxes))]
		k := classify.Key{
			Local:      addrIn(r, b.LocalFirst, b.LocalLast),
			Remote:     addrIn(r, b.RemoteFirst, b.RemoteLast),
			LocalPort:  uint16(in(r, uint64(b.LocalPortFirst), uint64(b.LocalPortLast))),
			RemotePort: uint16(in(r, uint64(b.RemotePortFirst), uint64(b.RemotePortLast))),
			Proto:      uint8(in(r, uint64(b.ProtoFirst), uint64(b.ProtoLast))),
		}
		// Pareto with shape 1 and scale 1, cut off.
		for run := min(int(1/(1-r.Float64())), 100); run > 0 && len(keys) < n; run-- {
			keys = append(keys, k)
		}
	}
	return keys
}

// in gives a bound of the range or anything between.
func in(r *rand.Rand, first, last uint64) uint64 {
	switch r.IntN(4) {
	case 0:
		return first
	case 1:
		return last
	}
	if last-first == math.MaxUint64 {
		return r.Uint64()
	}
	return first + r.Uint64N(last-first+1)
}

func addrIn(r *rand.Rand, first, last classify.Addr) classify.Addr {
	a := classify.Addr{Hi: in(r, first.Hi, last.Hi), Lo: r.Uint64()}
	switch {
	case first.Hi == last.Hi:
		a.Lo = in(r, first.Lo, last.Lo)
	case a.Hi == first.Hi && a.Lo < first.Lo:
		a.Lo = first.Lo
	case a.Hi == last.Hi && a.Lo > last.Lo:
		a.Lo = last.Lo
	}
	return a
}

// generality is roughly the binary logarithm of the number of packets in b.
func generality(b *classify.Box) int {
	size := func(first, last uint64) int { return int(math.Log2(float64(last-first) + 1)) }
	addr := func(first, last classify.Addr) int {
		if first.Hi != last.Hi {
			return 64 + size(first.Hi, last.Hi)
		}
		return size(first.Lo, last.Lo)
	}
	return addr(b.LocalFirst, b.LocalLast) + addr(b.RemoteFirst, b.RemoteLast) +
		size(uint64(b.LocalPortFirst), uint64(b.LocalPortLast)) +
		size(uint64(b.RemotePortFirst), uint64(b.RemotePortLast)) +
		size(uint64(b.ProtoFirst), uint64(b.ProtoLast))
}
