package classify

import "math/bits"

// A key and the bounds of a box are a few 64-bit words, so that a comparison
// takes several fields at once:
//
//	IPv4  word 0   rule | | local port | | local address
//	      word 1          | protocol | | remote port | | remote address
//	IPv6  word 0   local address, first half      word 1   second half
//	      word 2   remote address, first half     word 3   second half
//	      word 4   rule | | protocol | | remote port | | local port
//
// A zero bit, the guard, is left above each packed field. With all guards set
// in x, x-y leaves a guard set where the field of x is at least that of y, and
// no field borrows from its neighbour (Lamport, "Multiple Byte Processing with
// Full-Word Instructions", CACM 1975). Above the last guard of one word there
// is room for half of the rule number in each bound of a box.

const (
	maxWords  = 5
	maxFields = 7

	guard4a = 1<<32 | 1<<49
	guard4b = 1<<32 | 1<<49 | 1<<58
	guard6  = 1<<16 | 1<<33 | 1<<42

	ruleShift = 50
	ruleHalf  = 14 // bits of the rule in each bound
)

// field is one dimension of the tree: where its bits are in the words.
type field struct{ word, shift, bits uint8 }

var (
	fields4 = []field{{0, 0, 32}, {1, 0, 32}, {0, 33, 16}, {1, 33, 16}, {1, 50, 8}}
	fields6 = []field{{0, 0, 64}, {1, 0, 64}, {2, 0, 64}, {3, 0, 64}, {4, 0, 16}, {4, 17, 16}, {4, 34, 8}}
)

// box4 is an IPv4 box, two to a cache line. The last words have their guards
// set, the first words not.
type box4 struct{ first0, last0, first1, last1 uint64 }

// box6 is an IPv6 box.
type box6 struct {
	local, localLast, remote, remoteLast Addr
	first4, last4                        uint64
}

func ruleOf(first, last uint64) int32 {
	return int32(first>>ruleShift | last>>ruleShift<<ruleHalf)
}

func packRule(rule int32) (first, last uint64) {
	return uint64(rule) << (64 - ruleHalf), uint64(rule) >> ruleHalf << ruleShift
}

func words4(k *Key) (w0, w1 uint64) {
	return k.Local.Lo&(1<<32-1) | uint64(k.LocalPort)<<33,
		k.Remote.Lo&(1<<32-1) | uint64(k.RemotePort)<<33 | uint64(k.Proto)<<50
}

func word6(k *Key) uint64 {
	return uint64(k.LocalPort) | uint64(k.RemotePort)<<17 | uint64(k.Proto)<<34
}

// corners gives the keys at the two ends of b.
func (b *Box) corners() (first, last Key) {
	return Key{b.LocalFirst, b.RemoteFirst, b.LocalPortFirst, b.RemotePortFirst, b.ProtoFirst},
		Key{b.LocalLast, b.RemoteLast, b.LocalPortLast, b.RemotePortLast, b.ProtoLast}
}

func pack4(b *Box) (p box4) {
	first, last := b.corners()
	p.first0, p.first1 = words4(&first)
	p.last0, p.last1 = words4(&last)
	r0, r1 := packRule(b.Rule)
	p.first0 |= r0
	p.last0 |= r1 | guard4a
	p.last1 |= guard4b
	return p
}

func pack6(b *Box) box6 {
	first, last := b.corners()
	r0, r1 := packRule(b.Rule)
	return box6{b.LocalFirst, b.LocalLast, b.RemoteFirst, b.RemoteLast,
		word6(&first) | r0, word6(&last) | r1 | guard6}
}

// scan4 gives the rule of the first box that holds the key and has a rule of
// at least from, if that is below best; else best. Boxes are in rule order.
func scan4(boxes []box4, w0, w1 uint64, from, best int32) int32 {
	g0, g1 := w0|guard4a, w1|guard4b
	for i := range boxes {
		b := &boxes[i]
		in0 := (g0 - b.first0) & (b.last0 - w0) & guard4a
		in1 := (g1 - b.first1) & (b.last1 - w1) & guard4b
		if in0|in1<<1 == guard4a|guard4b<<1 {
			if r := ruleOf(b.first0, b.last0); r >= from {
				return min(r, best)
			}
		}
	}
	return best
}

// scan6 is scan4 for IPv6.
func scan6(boxes []box6, k *Key, w4 uint64, from, best int32) int32 {
	g4 := w4 | guard6
	for i := range boxes {
		b := &boxes[i]
		if (g4-b.first4)&(b.last4-w4)&guard6 == guard6 &&
			below(k.Local, b.local)|below(b.localLast, k.Local)|
				below(k.Remote, b.remote)|below(b.remoteLast, k.Remote) == 0 {
			if r := ruleOf(b.first4, b.last4); r >= from {
				return min(r, best)
			}
		}
	}
	return best
}

// below is 1 when a comes before b, else 0, without a branch.
func below(a, b Addr) uint64 {
	_, c := bits.Sub64(a.Lo, b.Lo, 0)
	_, c = bits.Sub64(a.Hi, b.Hi, c)
	return c
}
