package rules

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/ipfw/ipfw/engine"
)

// Changes says in what a policy differs from one before it, by the names of its
// blocks. Where a block stands in a file is no difference; the order of rules is.
type Changes struct {
	// Rules are in the order of the new policy, those that are Removed in that
	// of the old one. A rule that is disabled is not there. Moved ones have
	// changed places with others that are the same.
	Added   []string `json:"added,omitempty"`
	Removed []string `json:"removed,omitempty"`
	Changed []string `json:"changed,omitempty"`
	Moved   []string `json:"moved,omitempty"`
	// Others are other blocks, as a file has them: `ipsec "lan"`, `policy`.
	Others []string `json:"others,omitempty"`
}

// None says that there is no difference.
func (c *Changes) None() bool {
	return len(c.Added)+len(c.Removed)+len(c.Changed)+len(c.Moved)+len(c.Others) == 0
}

// String names the differences in one line, of many of a kind the first ones.
func (c *Changes) String() string {
	if c.None() {
		return "nothing has changed"
	}
	var parts []string
	for _, k := range []struct {
		what string
		list []string
	}{{"added", c.Added}, {"removed", c.Removed}, {"changed", c.Changed}, {"moved", c.Moved}} {
		if len(k.list) > 0 {
			parts = append(parts, k.what+" rule "+some(k.list, true))
		}
	}
	if len(c.Others) > 0 {
		parts = append(parts, "changed "+some(c.Others, false))
	}
	return strings.Join(parts, "; ")
}

// some names the first few of a list.
func some(list []string, quote bool) string {
	const most = 8
	var names []string
	for _, n := range list[:min(most, len(list))] {
		if quote {
			n = fmt.Sprintf("%q", n)
		}
		names = append(names, n)
	}
	s := strings.Join(names, ", ")
	if n := len(list) - most; n > 0 {
		s += fmt.Sprintf(" and %d more", n)
	}
	return s
}

// ChangesFrom compares a policy with one before it.
func (p *Policy) ChangesFrom(old *Policy) (c Changes) {
	was, is := ownRules(old), ownRules(p)
	at := make(map[string]int, len(was)) // of an old rule
	for i, r := range was {
		at[r.Name] = i
	}
	var kept []int // of rules that both have, where the old policy has them, in the order of the new one
	names := map[string]bool{}
	for _, r := range is {
		names[r.Name] = true
		i, ok := at[r.Name]
		if !ok {
			c.Added = append(c.Added, r.Name)
			continue
		}
		kept = append(kept, i)
		if !same(r, was[i]) {
			c.Changed = append(c.Changed, r.Name)
		}
	}
	for _, r := range was {
		if !names[r.Name] {
			c.Removed = append(c.Removed, r.Name)
		}
	}
	stay := rising(kept)
	for k, i := range kept {
		if !stay[k] {
			c.Moved = append(c.Moved, was[i].Name)
		}
	}

	settings := func(q *Policy) any {
		s := q.Settings
		s.Place = ""
		return []any{s, q.Engine.Default, q.Engine.ClearErrors, q.Engine.HalfOpen, q.Engine.Timeouts}
	}
	if !reflect.DeepEqual(settings(old), settings(p)) {
		c.Others = append(c.Others, "policy")
	}
	c.Others = append(c.Others, otherBlocks("ipsec", blocksOf(old.IPsec, ipsecKey), blocksOf(p.IPsec, ipsecKey))...)
	c.Others = append(c.Others, otherBlocks("ike", blocksOf(old.IKE, ikeKey), blocksOf(p.IKE, ikeKey))...)
	return c
}

// ownRules gives the rules that the user has written.
func ownRules(p *Policy) (list []*engine.Rule) {
	for i := range p.Engine.Rules {
		if r := &p.Engine.Rules[i]; !r.Essential {
			list = append(list, r)
		}
	}
	return list
}

// same compares two rules, wherever they stand.
func same(a, b *engine.Rule) bool {
	x, y := *a, *b
	x.Place, y.Place = "", ""
	return reflect.DeepEqual(x, y)
}

// rising says which elements of a list belong to a longest rising part of it:
// those stay where they are, and the others have moved.
func rising(list []int) []bool {
	var tails []int                  // by length - 1: where the part with the least end ends
	before := make([]int, len(list)) // -1: it is the first of its part
	for i, v := range list {
		n, _ := slices.BinarySearchFunc(tails, v, func(t, v int) int { return list[t] - v })
		before[i] = -1
		if n > 0 {
			before[i] = tails[n-1]
		}
		if n == len(tails) {
			tails = append(tails, i)
		} else {
			tails[n] = i
		}
	}
	stay := make([]bool, len(list))
	if len(tails) > 0 {
		for i := tails[len(tails)-1]; i >= 0; i = before[i] {
			stay[i] = true
		}
	}
	return stay
}

// blocksOf gives blocks by name, without their places.
func blocksOf[B any](list []B, bare func(*B) string) map[string]B {
	m := make(map[string]B, len(list))
	for _, b := range list {
		name := bare(&b)
		m[name] = b
	}
	return m
}

func ipsecKey(b *IPsec) string { b.Place, b.Places = "", nil; return b.Name }

func ikeKey(b *IKE) string { b.Place, b.Places = "", nil; return b.Name }

// otherBlocks names the blocks of a kind that one policy has and the other has not
// like that.
func otherBlocks[B any](kind string, was, is map[string]B) (list []string) {
	names := map[string]bool{}
	for name := range was {
		names[name] = true
	}
	for name := range is {
		names[name] = true
	}
	for _, name := range keys(names) {
		a, had := was[name]
		b, has := is[name]
		if had != has || !reflect.DeepEqual(a, b) {
			list = append(list, fmt.Sprintf("%s %q", kind, name))
		}
	}
	return list
}
