// Package classify finds the first of many rules that holds a packet, in a
// time that hardly grows with their number.
//
// Limits:
//   - a Classifier is one address family; a policy with both has two
//   - a Classifier never changes; a changed policy is built anew
package classify

import (
	"fmt"
	"math"
	"slices"
)

// Classifier finds the first box, by Rule, that holds a packet.
type Classifier struct {
	family Family
	root   node
	nodes  []node
	boxes4 []box4
	boxes6 []box6
}

// Build makes a Classifier of the boxes of one family. It keeps nothing of
// boxes. Addresses above the family's last are cut off. A Rule outside 0 to
// MaxRule is the caller's mistake and panics.
func Build(boxes []Box, family Family) *Classifier {
	kept := make([]Box, 0, len(boxes))
	last := family.Last()
	for i := range boxes {
		b := boxes[i]
		if b.Rule < 0 || b.Rule > MaxRule {
			panic(fmt.Sprintf("classify: box %d has rule %d, outside 0 to %d", i, b.Rule, MaxRule))
		}
		if last.Less(b.LocalLast) {
			b.LocalLast = last
		}
		if last.Less(b.RemoteLast) {
			b.RemoteLast = last
		}
		if last.Less(b.LocalFirst) || last.Less(b.RemoteFirst) || b.empty() {
			continue
		}
		kept = append(kept, b)
	}
	slices.SortStableFunc(kept, func(a, b Box) int { return int(a.Rule) - int(b.Rule) })
	return build(kept, family)
}

// First gives the lowest Rule that is at least from and has a box that holds
// k, or -1. It only reads and does not allocate; safe for concurrent use. To
// go on to the next rule after r, ask with from r+1.
func (c *Classifier) First(k *Key, from int32) int32 {
	var w [8]uint64
	if c.family == IPv4 {
		w[0], w[1] = words4(k)
	} else {
		w[0], w[1] = k.Local.Hi, k.Local.Lo
		w[2], w[3] = k.Remote.Hi, k.Remote.Lo
		w[4] = word6(k)
	}
	var (
		best    int32 = math.MaxInt32
		pending [maxForks]node
		forks   int
		n       = c.root
	)
	for {
		for n&isMask != isLeaf {
			if n&isMask == isCut {
				n = c.nodes[n.child(w[n>>34&7])]
				continue
			}
			pending[forks&(maxForks-1)] = n
			forks++
			n = c.nodes[n.at()]
		}
		if m := n.boxes(); m > 0 {
			if c.family == IPv4 {
				best = scan4(c.boxes4[n.at():][:m], w[0], w[1], from, best)
			} else {
				best = scan6(c.boxes6[n.at():][:m], k, w[4], from, best)
			}
		}
		for {
			if forks == 0 {
				if best == math.MaxInt32 {
					return -1
				}
				return best
			}
			forks--
			n = pending[forks&(maxForks-1)]
			if n.secondRule() < best {
				break
			}
		}
		n = c.nodes[n.at()+1]
	}
}

// Bytes is the memory that c holds.
func (c *Classifier) Bytes() int {
	return 8*cap(c.nodes) + 32*cap(c.boxes4) + 80*cap(c.boxes6)
}
