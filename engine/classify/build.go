package classify

import (
	"math"
	"slices"
)

const (
	maxForks = 8  // searches put off at one time; a power of two
	maxDepth = 48 // cuts on one path
)

// cell is what of a box can still come to a node: the hull of the part that
// the cuts above let through, field by field.
type cell struct {
	first, last [maxFields]uint64
	box         int32 // index in builder.boxes
}

type builder struct {
	boxes   []Box
	fields  []field
	levels  [maxDepth + 1][]cell
	out     *Classifier
	leaves  map[uint64][]node // by hash of their boxes
	leafIDs []int32           // beside out.boxes: index in boxes
	work    int               // what may still be spent on choosing cuts
	chooser chooser
}

func build(boxes []Box, family Family) *Classifier {
	b := &builder{
		boxes:  boxes,
		fields: fields4,
		out:    &Classifier{family: family},
		leaves: make(map[uint64][]node),
		work:   4000*len(boxes) + 1<<22,
	}
	if family == IPv6 {
		b.fields = fields6
	}
	cells := make([]cell, len(boxes))
	for i := range boxes {
		cells[i] = b.cell(i)
	}
	b.levels[0] = cells
	b.out.root = b.node(0, 0, 16*len(boxes)+256)
	b.out.nodes = slices.Clip(b.out.nodes)
	b.out.boxes4 = slices.Clip(b.out.boxes4)
	b.out.boxes6 = slices.Clip(b.out.boxes6)
	return b.out
}

func (b *builder) cell(i int) cell {
	x := &b.boxes[i]
	c := cell{box: int32(i)}
	ports := [][2]uint16{{x.LocalPortFirst, x.LocalPortLast}, {x.RemotePortFirst, x.RemotePortLast}}
	n := 0
	for _, a := range [][2]Addr{{x.LocalFirst, x.LocalLast}, {x.RemoteFirst, x.RemoteLast}} {
		if b.out.family == IPv6 {
			c.first[n], c.last[n] = a[0].Hi, a[1].Hi
			n++
			if a[0].Hi != a[1].Hi { // the hull of the second halves
				a[0].Lo, a[1].Lo = 0, math.MaxUint64
			}
		}
		c.first[n], c.last[n] = a[0].Lo, a[1].Lo
		n++
	}
	for _, p := range ports {
		c.first[n], c.last[n] = uint64(p[0]), uint64(p[1])
		n++
	}
	c.first[n], c.last[n] = uint64(x.ProtoFirst), uint64(x.ProtoLast)
	return c
}

// node builds the tree for the cells in levels[depth]. Its leaves may hold
// room boxes in all; room is at least the number of cells.
func (b *builder) node(depth, forks, room int) node {
	cells := b.levels[depth]
	if len(cells) <= 2 || depth >= maxDepth {
		return b.leaf(cells)
	}
	p := b.chooser.choose(b, cells, forks < maxForks, room)
	if p.bits == 0 {
		return b.leaf(cells)
	}
	if p.limit == 0 {
		return b.cut(p.cut, depth, forks, room)
	}
	// Fork: those that span no more than limit children, and the rest.
	f, mask := p.field, uint64(1)<<p.bits-1
	wide := make([]cell, 0, p.wide)
	narrow := make([]cell, 0, len(cells)-p.wide)
	for i := range cells {
		c := &cells[i]
		if c.last[f]>>p.shift-c.first[f]>>p.shift >= min(uint64(p.limit), mask) {
			wide = append(wide, *c)
		} else {
			narrow = append(narrow, *c)
		}
	}
	second := b.boxes[wide[0].box].Rule
	at := len(b.out.nodes)
	b.out.nodes = append(b.out.nodes, 0, 0)
	b.levels[depth] = narrow
	roomWide := int(int64(room) * int64(len(wide)) / int64(len(cells)))
	first := b.cut(p.cut, depth, forks+1, room-roomWide)
	b.out.nodes[at] = first
	b.levels[depth] = wide
	rest := b.node(depth, forks, roomWide)
	b.out.nodes[at+1] = rest
	b.levels[depth] = cells
	return forkNode(at, second)
}

// cut builds the children of levels[depth].
func (b *builder) cut(c cut, depth, forks, room int) node {
	cells := b.levels[depth]
	children := 1 << c.bits
	mask := uint64(children - 1)
	f := c.field

	// Lists of cells, child by child.
	begin := make([]int32, children+1)
	for i := range cells {
		first, n := c.span(&cells[i], mask)
		for j := range n {
			begin[(first+j)&mask+1]++
		}
	}
	for i := range children {
		begin[i+1] += begin[i]
	}
	total := int(begin[children])
	lists := make([]int32, total)
	for i := range cells {
		first, n := c.span(&cells[i], mask)
		for j := range n {
			v := (first + j) & mask
			lists[begin[v]] = int32(i)
			begin[v]++
		}
	}
	copy(begin[1:], begin)
	begin[0] = 0

	at := len(b.out.nodes)
	b.out.nodes = append(b.out.nodes, make([]node, children)...)
	// Children with the same cells are one child, which the cut then must not
	// clip: it has to be right for all of them.
	list := func(v int) []int32 { return lists[begin[v]:begin[v+1]] }
	twins := make(map[uint64]int, children) // by hash, the first such child
	twin := make([]int32, children)         // the first such child
	many := make([]bool, children)
	for v := range children {
		h := uint64(0)
		for _, i := range list(v) {
			h = mixHash(h, i)
		}
		u, ok := twins[h]
		if ok = ok && slices.Equal(list(u), list(v)); !ok {
			u, twins[h] = v, v
		}
		twin[v], many[u] = int32(u), ok
	}
	for v := range children {
		if len(list(v)) == 0 {
			continue
		}
		if u := int(twin[v]); u < v {
			b.out.nodes[at+v] = b.out.nodes[at+u]
			continue
		}
		next := b.levels[depth+1][:0]
		for _, i := range list(v) {
			x := cells[i]
			if !many[v] {
				x.first[f], x.last[f] = c.clip(x.first[f], x.last[f], uint64(v))
			}
			next = append(next, x)
		}
		b.levels[depth+1] = next
		share := int(int64(room) * int64(len(next)) / int64(total))
		n := b.node(depth+1, forks, max(share, len(next)))
		b.out.nodes[at+v] = n
	}
	return cutNode(at, b.fields[f], c)
}

func mixHash(h uint64, i int32) uint64 {
	h = (h ^ uint64(uint32(i))) * 0x9e3779b97f4a7c15
	return h ^ h>>29
}

// leaf stores the boxes of cells, or finds where they already are.
func (b *builder) leaf(cells []cell) node {
	h := uint64(len(cells))
	for i := range cells {
		h = mixHash(h, cells[i].box)
	}
	for _, n := range b.leaves[h] {
		ids := b.leafIDs[n.at():][:n.boxes()]
		if slices.EqualFunc(ids, cells, func(id int32, c cell) bool { return id == c.box }) {
			return n
		}
	}
	n := leafNode(len(b.leafIDs), len(cells))
	for i := range cells {
		id := cells[i].box
		b.leafIDs = append(b.leafIDs, id)
		if b.out.family == IPv4 {
			b.out.boxes4 = append(b.out.boxes4, pack4(&b.boxes[id]))
		} else {
			b.out.boxes6 = append(b.out.boxes6, pack6(&b.boxes[id]))
		}
	}
	b.leaves[h] = append(b.leaves[h], n)
	return n
}
