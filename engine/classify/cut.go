package classify

import "math/bits"

// cut divides packets by a few bits of one field, which need not be the
// highest that are left: packets that differ above them share a child.
type cut struct {
	field int   // index in builder.fields
	shift uint8 // bits of the field below
	bits  uint8 // 2^bits children
}

// span is the children that one cell comes to: n from first on, and after the
// last child the first.
type span struct{ first, n int32 }

func (c cut) span(x *cell) span {
	mask := uint64(1)<<c.bits - 1
	a, z := x.first[c.field]>>c.shift, x.last[c.field]>>c.shift
	if z-a >= mask {
		return span{0, int32(mask + 1)}
	}
	return span{int32(a & mask), int32(z-a) + 1}
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
// first side is cut and holds the cells that come to at most limit children.
type plan struct {
	cut
	limit int32
	cost  float32
}

// The cost model, in nanoseconds more or less; set by measuring.
const (
	costNode  = 4.0 // to go down one cut
	costLeaf  = 3.0 // to begin a leaf
	costBox   = 1.0 // to compare one box
	costFork  = 6.0 // to come back for the second side
	costCopy  = 0.5 // for each time that the cells grow by their own number ...
	copyCells = 1024.0
	costWords = 0.1 // for each word of children per cell
	goodLeaf  = 6   // cells above this number cost by their logarithm

	// A cut that leaves a packet with more than this part of the cells is none.
	maxLeft = 0.8

	bigNode     = 16
	spareRoom   = 3
	maxBits     = 16
	sampleCells = 256 // this many, or one of sampleEvery, stand for more
	sampleEvery = 32
)

// copyCost is the price of one copy of each cell. Big nodes pay more: what they
// copy is copied again below, and what no longer fits the cache costs most.
func copyCost(cells int) float32 { return costCopy * (1 + float32(cells)/copyCells) }

// chooser looks for the best plan; it keeps its scratch.
type chooser struct {
	table  []float32 // time to search a tree not yet built, by number of cells
	sample []cell
	spans  []span
	count  []int32   // by child, less the child before: cells
	weight []float32 // the same: packets, when each cell gets one
}

func (h *chooser) grow(n int) {
	for x := len(h.table); x <= n; x++ {
		e := float32(0)
		if x > 0 {
			e = costLeaf + costBox*float32(min(x, goodLeaf))
		}
		if x > goodLeaf {
			e = min(costLeaf+costBox*float32(x), e+costNode*log2(float32(x)/goodLeaf))
		}
		h.table = append(h.table, e)
	}
}

// log2 is good to a tenth, and the same on every machine.
func log2(x float32) float32 {
	n := uint32(x * 256)
	l := bits.Len32(n) - 1
	return float32(l) - 8 + float32(n)/float32(uint32(1)<<l) - 1
}

// choose gives the plan of least cost for cells and takes its work off u.
func (h *chooser) choose(b *builder, cells []cell, every int, mayFork bool, u *budget) plan {
	whole, scale := len(cells), 1
	if size := max(sampleCells, whole/every); whole > size {
		scale = (whole + size - 1) / size
		h.sample = h.sample[:0]
		for i := 0; i < whole; i += scale {
			h.sample = append(h.sample, cells[i])
		}
		cells = h.sample
	}
	h.grow(whole + scale)
	spare := 1
	if whole > bigNode {
		spare = spareRoom
	}
	t := try{
		chooser: h, cells: cells, scale: scale, boxWords: b.boxWords, spare: spare, copies: copyCost(whole), mayFork: mayFork, budget: u,
		best: plan{cost: costLeaf + costBox*float32(whole)},
	}
	top := bits.Len(uint(whole))
	for f := range b.fields {
		low, high := varying(cells, f)
		step := 4
		if b.fields[f].bits == 64 {
			step = 8
		}
		for d, lastK := top+2, 0; d >= top-8; d -= 2 {
			k := min(max(d, 1), high, maxBits)
			if k == lastK || k == 0 {
				continue
			}
			lastK = k
			for s := high - k; ; s -= step {
				s = max(s, min(low, high-k))
				t.cut(cut{f, uint8(s), uint8(k)})
				if s <= low {
					break
				}
			}
		}
	}
	return t.best
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

// try is the search for one node's plan.
type try struct {
	*chooser
	cells    []cell
	scale    int // cells that each of cells stands for
	boxWords int
	spare    int // times as much room is left to the nodes below
	copies   float32
	mayFork  bool
	budget   *budget
	best     plan
}

// cut rates one cut, without a fork and with some.
func (t *try) cut(c cut) {
	if t.budget.work -= len(t.cells); t.budget.work < 0 {
		return
	}
	children := int32(1) << c.bits
	t.spans = t.spans[:0]
	several := false
	for i := range t.cells {
		s := c.span(&t.cells[i])
		several = several || s.n > 1
		t.spans = append(t.spans, s)
	}
	t.rate(c, 0)
	if t.mayFork && several {
		t.rate(c, 1)
		if children >= 8 {
			t.rate(c, children/4)
		}
	}
}

// rate rates one cut of the cells that come to at most limit children; all,
// when limit is 0. The others make the second side of a fork.
func (t *try) rate(c cut, limit int32) {
	children := 1 << c.bits
	total, narrow := 0, 0
	for _, s := range t.spans {
		if limit == 0 || s.n <= limit {
			total += int(s.n)
			narrow++
		}
	}
	wide := len(t.spans) - narrow
	if wide == 0 {
		limit = 0
	}
	n := float32(narrow)
	cost := costNode + t.copies*float32(total-narrow)/n + costWords*float32(children)/(n*float32(t.scale))
	if wide > 0 {
		cost += costFork + t.table[wide*t.scale]
	}
	t.budget.work -= len(t.spans)
	if narrow < 2 || cost+t.table[1] >= t.best.cost || !t.allows(narrow, total, children) {
		return
	}
	search, left := t.below(children, limit)
	t.budget.work -= len(t.spans) + children
	if cost += search / n; cost < t.best.cost && left <= maxLeft*n*n {
		t.best = plan{c, limit, cost}
	}
}

// allows says that there is room to cut narrow of the cells into total.
func (t *try) allows(narrow, total, children int) bool {
	u := *t.budget
	if narrow < len(t.spans) {
		u.room -= forkNodes
	}
	return u.part(narrow, len(t.spans)).allows(total*t.scale*t.spare, children, t.boxWords)
}

// below sums up, over the cells and with one packet from each, the time to
// search the child that the packet comes to, and the number of cells in it.
func (t *try) below(children int, limit int32) (search, left float32) {
	if cap(t.count) <= children {
		t.count, t.weight = make([]int32, 2*children), make([]float32, 2*children)
	}
	count, weight := t.count[:children+1], t.weight[:children+1]
	clear(count)
	clear(weight)
	for _, s := range t.spans {
		if limit > 0 && s.n > limit {
			continue
		}
		end, w := s.first+s.n, 1/float32(s.n)
		count[s.first]++
		weight[s.first] += w
		if int(end) > children {
			end -= int32(children)
			count[0]++
			weight[0] += w
		}
		count[end]--
		weight[end] -= w
	}
	n, w := int32(0), float32(0)
	for v := range children {
		n += count[v]
		w += weight[v]
		if n > 0 {
			search += w * t.table[1+int(n-1)*t.scale]
			left += w * float32(n)
		}
	}
	return search, left
}
