package classify

// node is a node of the tree in one word:
//
//	bits 0-31   where its children (in Classifier.nodes) or boxes begin
//	bits 32-33  what it is
//	leaf        bits 34-63  number of boxes; the zero node is an empty leaf
//	cut         bits 34-36  word of the key, 37-42 shift, 43-47 bits that pick a child
//	fork        bits 34-61  the lowest rule in its second child
type node uint64

const (
	isLeaf = 0 << 32
	isCut  = 1 << 32
	isFork = 2 << 32
	isMask = 3 << 32
)

func leafNode(at, n int) node { return node(uint32(at)) | isLeaf | node(n)<<34 }

func cutNode(at int, f field, c cut) node {
	return node(uint32(at)) | isCut | node(f.word)<<34 | node(f.shift+c.shift)<<37 | node(c.bits)<<43
}

func forkNode(at int, second int32) node { return node(uint32(at)) | isFork | node(second)<<34 }

func (n node) at() uint32        { return uint32(n) }
func (n node) boxes() int        { return int(n >> 34) }
func (n node) secondRule() int32 { return int32(n >> 34) }
func (n node) child(w uint64) uint32 {
	return uint32(n) + uint32(w>>(n>>37&63))&(1<<(n>>43&31)-1)
}
