// Package classify finds the first of many rules that holds a packet, in a
// time that hardly grows with their number.
//
// Limits:
//   - a Classifier is one address family; a policy with both has two
//   - a Classifier never changes; a changed policy is built anew
package classify

import (
	"fmt"
	"slices"
)

// Classifier finds the first box, by Rule, that holds a packet.
type Classifier struct {
	boxes []Box
}

// Build makes a Classifier of the boxes of one family. It keeps nothing of
// boxes. Addresses above the family's last are cut off. A Rule outside 0 to
// MaxRule is the caller's mistake and panics.
func Build(boxes []Box, family Family) *Classifier {
	c := &Classifier{}
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
		if !b.empty() {
			c.boxes = append(c.boxes, b)
		}
	}
	slices.SortStableFunc(c.boxes, func(a, b Box) int { return int(a.Rule) - int(b.Rule) })
	return c
}

// First gives the lowest Rule that is at least from and has a box that holds
// k, or -1. It only reads and does not allocate; safe for concurrent use. To
// go on to the next rule after r, ask with from r+1.
func (c *Classifier) First(k *Key, from int32) int32 {
	i, _ := slices.BinarySearchFunc(c.boxes, from, func(b Box, from int32) int { return int(b.Rule) - int(from) })
	for ; i < len(c.boxes); i++ {
		if c.boxes[i].Holds(k) {
			return c.boxes[i].Rule
		}
	}
	return -1
}
