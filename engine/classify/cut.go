package classify

import "math/bits"

// cut divides packets by a few bits of one field, which need not be its
// highest that are left: packets that differ above them share a child.
type cut struct {
	field int   // index in builder.fields
	shift uint8 // bits of the field below
	bits  uint8 // 2^bits children
}

// span gives the first child that x comes to and how many it comes to; they
// follow each other, the first child after the last.
func (c cut) span(x *cell, mask uint64) (first, n uint64) {
	a, z := x.first[c.field]>>c.shift, x.last[c.field]>>c.shift
	if z-a >= mask {
		return 0, mask + 1
	}
	return a & mask, z - a + 1
}

// clip gives the hull of what of first to last comes to child v, which must
// not be nothing.
func (c cut) clip(first, last, v uint64) (uint64, uint64) {
	mask := uint64(1)<<c.bits - 1
	if p := first >> c.shift; p&mask != v {
		q := p&^mask | v
		if q < p {
			q += mask + 1
		}
		first = q << c.shift
	}
	if p := last >> c.shift; p&mask != v {
		q := p&^mask | v
		if q > p {
			q -= mask + 1
		}
		last = q<<c.shift | (1<<c.shift - 1)
	}
	return first, last
}

// plan is what to do at a node. No bits: a leaf. A limit: a fork, of which the
// first side is cut and holds the cells that span at most limit children.
type plan struct {
	cut
	limit int
	wide  int // cells on the second side
	cost  float32
}

// The cost model, in nanoseconds more or less.
const (
	costNode  = 4.0 // to go down one cut
	costBox   = 1.2 // to compare one box
	costLeaf  = 2.0
	costFork  = 5.0
	costCopy  = 0.5 // for each time that the cells grow by their own number
	costWords = 0.1 // for each word of children per cell
	maxBits   = 16
	flatCells = 6 // above, a good tree costs by the logarithm
)

// costLeafOf is the time to search a leaf of n boxes.
func costLeafOf(n float32) float32 { return costLeaf + costBox*n }

// chooser looks for the best plan; it keeps its scratch.
type chooser struct {
	count  []int32   // difference of cells by child
	weight []float32 // difference of packets by child
	table  []float32 // estimate by number of cells
}

// estimate is the time to search a tree of n cells, not yet built.
func (h *chooser) estimate(n int) float32 {
	for len(h.table) <= n {
		x := len(h.table)
		e := float32(0)
		if x > 0 {
			e = costLeafOf(float32(min(x, flatCells)))
		}
		if x > flatCells {
			e = min(costLeafOf(float32(x)), e+costNode*log2(float32(x)/flatCells))
		}
		h.table = append(h.table, e)
	}
	return h.table[n]
}

func log2(x float32) float32 {
	n := uint32(x * 256)
	l := bits.Len32(n) - 1
	return float32(l) - 8 + float32(n)/float32(uint32(1)<<l) - 1
}

func (h *chooser) choose(b *builder, cells []cell, mayFork bool, room int) plan {
	best := plan{cost: costLeafOf(float32(len(cells)))}
	if b.work <= 0 {
		return best
	}
	h.estimate(len(cells))
	top := bits.Len(uint(len(cells)))
	for f := range b.fields {
		low, high := varying(cells, f)
		if high == 0 {
			continue
		}
		var tried [maxBits + 1]bool
		for _, d := range []int{2, 0, -2, -4, -6, -8} {
			k := min(max(top+d, 1), high, maxBits)
			if tried[k] {
				continue
			}
			tried[k] = true
			step := 4
			if b.fields[f].bits == 64 {
				step = 8
			}
			last := -1
			for s := high - k; s > low-step; s -= step {
				s := max(s, min(low, high-k), 0)
				if s == last {
					break
				}
				last = s
				h.try(b, cells, cut{f, uint8(s), uint8(k)}, mayFork, room, &best)
			}
		}
	}
	return best
}

// varying gives the bits of the field, from low up to below high, in which
// the bounds of the cells differ from each other.
func varying(cells []cell, f int) (low, high int) {
	var first, last uint64
	for i := range cells {
		first |= cells[i].first[f] ^ cells[0].first[f]
		last |= cells[i].last[f] ^ cells[0].last[f]
	}
	if first|last == 0 {
		return 0, 0
	}
	return bits.TrailingZeros64(first | last), bits.Len64(first | last)
}

// try rates one cut, without a fork and with some, and keeps the best.
func (h *chooser) try(b *builder, cells []cell, c cut, mayFork bool, room int, best *plan) {
	children := 1 << c.bits
	mask := uint64(children - 1)
	if cap(h.count) <= children {
		h.count = make([]int32, children+1)
		h.weight = make([]float32, children+1)
	}
	limits := [3]int{0, 1, children / 4}
	for i, limit := range limits {
		if i > 0 && (!mayFork || limit == 0 || i == 2 && limit == 1) {
			break
		}
		b.work -= len(cells) + children
		count, weight := h.count[:children+1], h.weight[:children+1]
		clear(count)
		clear(weight)
		wide, all, total := 0, int32(0), 0
		var allWeight float32
		for j := range cells {
			first, n := c.span(&cells[j], mask)
			if limit > 0 && int(n) > limit {
				wide++
				continue
			}
			total += int(n)
			w := 1 / float32(n)
			if int(n) == children {
				all++
				allWeight += w
				continue
			}
			end := first + n
			count[first]++
			weight[first] += w
			if end > mask+1 {
				count[0]++
				weight[0] += w
				end -= mask + 1
			}
			count[end]--
			weight[end] -= w
		}
		narrow := len(cells) - wide
		if limit > 0 && wide == 0 {
			break
		}
		if narrow < 2 || total > room-wide {
			continue
		}
		n, w := all, allWeight
		var sum, load float32
		for v := range children {
			n += count[v]
			w += weight[v]
			sum += w * h.table[n]
			load += w * float32(n)
		}
		if load > 0.8*float32(narrow)*float32(narrow) {
			continue
		}
		cost := costNode + sum/float32(narrow) +
			costCopy*float32(total-narrow)/float32(narrow) + costWords*float32(children)/float32(narrow)
		if wide > 0 {
			cost += costFork + h.table[wide]
		}
		if cost < best.cost {
			*best = plan{c, limit, wide, cost}
		}
	}
}
