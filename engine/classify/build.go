package classify

import (
	"math"
	"slices"
)

const (
	maxForks = 8  // searches put off at one time; a power of two
	maxDepth = 48 // cuts on one path

	// The budget: see there.
	roomPerBox = 6
	minRoom    = 256
	workPerBox = 10000
	minWork    = 1 << 22
	forkNodes  = 2
)

// cell is what of a box can still come to a node: the hull of the part that
// the cuts above let through, field by field.
type cell struct {
	first, last [maxFields]uint64
	box         int32 // index in builder.boxes
}

type builder struct {
	boxes    []Box
	fields   []field
	boxWords int // memory of a box in 64-bit words, of which a node is one
	levels   [maxDepth + 1][]cell
	out      *Classifier
	leaves   map[uint64][]node // by hash of their boxes
	leafIDs  []int32           // beside out.boxes: index in boxes
	chooser  chooser
}

func build(boxes []Box, family Family) *Classifier { return build2(boxes, family).out }

func build2(boxes []Box, family Family) *builder {
	b := &builder{
		boxWords: 4,
		boxes:    boxes,
		fields:   fields4,
		out:      &Classifier{family: family},
		leaves:   make(map[uint64][]node),
	}
	if family == IPv6 {
		b.fields, b.boxWords = fields6, 10
	}
	cells := make([]cell, len(boxes))
	for i := range boxes {
		cells[i] = b.cell(i)
	}
	b.levels[0] = cells
	b.out.root = b.node(0, 0, &budget{(roomPerBox*len(boxes) + minRoom) * b.boxWords, workPerBox*len(boxes) + minWork})
	b.out.nodes = slices.Clip(b.out.nodes)
	b.out.boxes4 = slices.Clip(b.out.boxes4)
	b.out.boxes6 = slices.Clip(b.out.boxes6)
	return b
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

// budget is what a subtree may use up. Its children, one after the other, may
// use up their shares of what is left, by how many cells they have. So no
// policy, however made, takes more than a fixed multiple of its size in memory
// or in time to build: where the budget ends, there is a leaf.
type budget struct {
	room int // words of memory, for boxes and nodes; at least enough for one leaf
	work int // steps in choosing cuts
}

// allows says that a cut may make so many cells in so many children.
func (u budget) allows(cells, children, boxWords int) bool {
	return cells*boxWords+children <= u.room
}

// part is the share of part of the whole.
func (u budget) part(part, whole int) budget {
	return budget{
		room: int(int64(u.room) * int64(part) / int64(whole)),
		work: int(int64(u.work) * int64(part) / int64(whole)),
	}
}

// spend calls do with the share of part of the whole and takes off what it used.
func (u *budget) spend(part, whole int, do func(*budget)) {
	share := u.part(part, whole)
	left := share
	do(&left)
	u.room -= share.room - left.room
	u.work -= share.work - left.work
}

// node builds the tree for the cells in levels[depth].
func (b *builder) node(depth, forks int, u *budget) node {
	cells := b.levels[depth]
	if len(cells) <= 2 || depth >= maxDepth {
		return b.leaf(cells, u)
	}
	for every := sampleEvery; ; every = 1 {
		p := b.chooser.choose(b, cells, every, forks < maxForks, u)
		if p.bits == 0 {
			return b.leaf(cells, u)
		}
		if n, ok := b.follow(p, depth, forks, u); ok {
			return n
		}
		if every == 1 {
			return b.leaf(cells, u)
		}
	}
}

// follow does what the plan says; not ok: there was no room for it after all,
// though a sample of the cells had promised it.
func (b *builder) follow(p plan, depth, forks int, u *budget) (n node, ok bool) {
	if p.limit == 0 {
		return b.cut(p.cut, depth, forks, u)
	}
	cells := b.levels[depth]
	// Fork: the cells that come to few children first, then the rest.
	var narrow, wide []cell
	for i := range cells {
		if p.cut.span(&cells[i]).n > p.limit {
			wide = append(wide, cells[i])
		} else {
			narrow = append(narrow, cells[i])
		}
	}
	at := len(b.out.nodes)
	b.out.nodes = append(b.out.nodes, 0, 0)
	u.room -= forkNodes
	var first, second node
	b.levels[depth] = narrow
	u.spend(len(narrow), len(cells), func(u *budget) { first, ok = b.cut(p.cut, depth, forks+1, u) })
	if !ok {
		b.levels[depth] = cells
		return 0, false
	}
	b.levels[depth] = wide
	u.spend(len(wide), len(wide), func(u *budget) { second = b.node(depth, forks, u) })
	b.levels[depth] = cells
	b.out.nodes[at], b.out.nodes[at+1] = first, second
	return forkNode(at, b.boxes[wide[0].box].Rule), true
}

// cut builds the children of levels[depth]. Not ok: they do not fit.
func (b *builder) cut(c cut, depth, forks int, u *budget) (n node, ok bool) {
	cells := b.levels[depth]
	lists, total := b.lists(c, cells)
	if !u.allows(total, len(lists), b.boxWords) {
		return 0, false
	}
	u.room -= len(lists)
	at := len(b.out.nodes)
	b.out.nodes = append(b.out.nodes, make([]node, len(lists))...)
	twin, many := twins(lists)
	// The small children come first, and leave what they do not need.
	var order []int
	total = 0
	for v, list := range lists {
		if len(list) > 0 && twin[v] == v {
			order = append(order, v)
			total += len(list)
		}
	}
	slices.SortFunc(order, func(v, w int) int { return len(lists[v]) - len(lists[w]) })
	for _, v := range order {
		next := b.levels[depth+1][:0]
		for _, i := range lists[v] {
			x := cells[i]
			if !many[v] {
				x.first[c.field], x.last[c.field] = c.clip(x.first[c.field], x.last[c.field], uint64(v))
			}
			next = append(next, x)
		}
		b.levels[depth+1] = next
		var n node
		u.spend(len(next), total, func(u *budget) { n = b.node(depth+1, forks, u) })
		b.out.nodes[at+v] = n
		total -= len(next)
	}
	for v := range lists {
		b.out.nodes[at+v] = b.out.nodes[at+twin[v]]
	}
	return cutNode(at, b.fields[c.field], c), true
}

// lists gives the indexes of the cells that come to each child.
func (b *builder) lists(c cut, cells []cell) (lists [][]int32, total int) {
	children := int32(1) << c.bits
	begin := make([]int32, children+1)
	for i := range cells {
		s := c.span(&cells[i])
		total += int(s.n)
		for j := range s.n {
			begin[(s.first+j)&(children-1)+1]++
		}
	}
	lists = make([][]int32, children)
	all := make([]int32, total)
	for v := range lists {
		begin[v+1] += begin[v]
		lists[v] = all[begin[v]:begin[v]:begin[v+1]]
	}
	for i := range cells {
		s := c.span(&cells[i])
		for j := range s.n {
			v := (s.first + j) & (children - 1)
			lists[v] = append(lists[v], int32(i))
		}
	}
	return lists, total
}

// twins gives for each list the first that is equal, and whether there are
// more of it. Children with the same cells become one child, which the cut
// then must not clip: it has to be right for all of them.
func twins(lists [][]int32) (twin []int, many []bool) {
	twin, many = make([]int, len(lists)), make([]bool, len(lists))
	byHash := make(map[uint64]int)
	for v, list := range lists {
		twin[v] = v
		if len(list) == 0 {
			continue
		}
		h := uint64(0)
		for _, i := range list {
			h = mixHash(h, i)
		}
		if u, ok := byHash[h]; ok && slices.Equal(lists[u], list) {
			twin[v], many[u] = u, true
		} else {
			byHash[h] = v
		}
	}
	return twin, many
}

func mixHash(h uint64, i int32) uint64 {
	h = (h ^ uint64(uint32(i))) * 0x9e3779b97f4a7c15
	return h ^ h>>29
}

// leaf stores the boxes of cells, or finds where they already are.
func (b *builder) leaf(cells []cell, u *budget) node {
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
	u.room -= len(cells) * b.boxWords
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
