package engine

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/ipfw/ipfw/engine/classify"
)

// This file is about long lists of addresses, such as block lists of a million
// entries. To go through one for each packet that opens something takes as many
// steps as it has entries, so a policy in force has such lists sorted: 8 bytes for
// an IPv4 entry, 32 for an IPv6 entry, and a search in halves.

// longList is the number of ranges above which a list is sorted.
const longList = 16

// addrIndex is a list of ranges, sorted, of which none touches another.
type addrIndex struct {
	v4 []span4
	v6 []span
}

// span4 is a range of IPv4 addresses.
type span4 struct{ first, last uint32 }

// selectorIndex holds the long lists of a selector, sorted; nil: that list is short.
type selectorIndex struct {
	local, remote *addrIndex
	// outside says of IPv4 and IPv6 whether some local address is not a remote
	// one. It is kept for rules that protect.
	outside [2]bool
}

// indexed gives the policy with the long lists of its rules sorted. A policy
// without any, or that has been through here, is given back as it is.
func indexed(p *Policy) *Policy {
	long := func(r Rule) bool { return r.index == nil && (len(r.Local) > longList || len(r.Remote) > longList) }
	if !slices.ContainsFunc(p.Rules, long) {
		return p
	}
	type same struct {
		first *AddrRange
		n     int
	}
	made := map[same]*addrIndex{} // several rules may share a list
	index := func(list []AddrRange) *addrIndex {
		if len(list) <= longList {
			return nil
		}
		x := same{&list[0], len(list)}
		if made[x] == nil {
			made[x] = indexOf(list)
		}
		return made[x]
	}
	q := *p
	q.Rules = slices.Clone(p.Rules)
	for i := range q.Rules {
		r := &q.Rules[i]
		if !long(*r) {
			continue
		}
		x := &selectorIndex{local: index(r.Local), remote: index(r.Remote)}
		r.index = x
		if r.Action == Protect {
			for _, a := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
				x.outside[familyOf(a)] = r.localOutside(a)
			}
		}
	}
	return &q
}

// indexOf sorts a list.
func indexOf(list []AddrRange) *addrIndex {
	n4 := 0
	for i := range list {
		if list[i].First.Is4() {
			n4++
		}
	}
	x := &addrIndex{v4: make([]span4, 0, n4), v6: make([]span, 0, len(list)-n4)}
	for i := range list {
		if r := &list[i]; r.First.Is4() {
			x.v4 = append(x.v4, span4{number4(r.First), number4(r.Last)})
		} else {
			x.v6 = append(x.v6, span{classify.AddrFrom(r.First), classify.AddrFrom(r.Last)})
		}
	}
	x.v4 = merge(x.v4, func(a, b span4) int { return cmp.Compare(a.first, b.first) }, func(a *span4, b span4) bool {
		joins := uint64(b.first) <= uint64(a.last)+1
		if joins {
			a.last = max(a.last, b.last)
		}
		return joins
	})
	x.v6 = merge(x.v6, func(a, b span) int { return a.first.Compare(b.first) }, func(a *span, b span) bool {
		after := a.last
		if after.Lo++; after.Lo == 0 {
			after.Hi++
		}
		// After the last address of all comes the first, which is never less.
		joins := !a.last.Less(b.first) || after == b.first
		if joins && a.last.Less(b.last) {
			a.last = b.last
		}
		return joins
	})
	return x
}

// merge sorts ranges and joins those that overlap or touch: join gives false if
// its two do neither, or else puts the second into the first.
func merge[T any](list []T, order func(a, b T) int, join func(a *T, b T) bool) []T {
	if !slices.IsSortedFunc(list, order) {
		slices.SortFunc(list, order)
	}
	kept := 0
	for _, s := range list {
		if kept == 0 || !join(&list[kept-1], s) {
			list[kept] = s
			kept++
		}
	}
	return slices.Clip(list[:kept])
}

func number4(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

// covers says whether all addresses of a range are in the index.
func (x *addrIndex) covers(r AddrRange) bool {
	if r.First.Is4() {
		first, last := number4(r.First), number4(r.Last)
		i, _ := slices.BinarySearchFunc(x.v4, first, func(s span4, a uint32) int { return cmp.Compare(s.last, a) })
		return i < len(x.v4) && x.v4[i].first <= first && last <= x.v4[i].last
	}
	first, last := classify.AddrFrom(r.First), classify.AddrFrom(r.Last)
	i, _ := slices.BinarySearchFunc(x.v6, first, func(s span, a classify.Addr) int { return s.last.Compare(a) })
	return i < len(x.v6) && !first.Less(x.v6[i].first) && !x.v6[i].last.Less(last)
}

// Within says whether all addresses of a list are in one of the ranges of
// another. Unlike in a Selector, an empty list holds no address.
func Within(list, in []AddrRange) bool {
	x := indexOf(in)
	return !slices.ContainsFunc(list, func(r AddrRange) bool { return !x.covers(r) })
}

// isLocal says whether an address is among the selector's local ones.
func (s *Selector) isLocal(a netip.Addr) bool {
	if s.index != nil && s.index.local != nil {
		return s.index.local.covers(AddrRange{a, a})
	}
	return inAddrs(s.Local, a)
}

// isRemote says whether an address is among the selector's remote ones.
func (s *Selector) isRemote(a netip.Addr) bool {
	if s.index != nil && s.index.remote != nil {
		return s.index.remote.covers(AddrRange{a, a})
	}
	return inAddrs(s.Remote, a)
}

// familyOf gives the place of an address's family in selectorIndex.outside.
func familyOf(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// localOutside says whether some local address of that family is no remote one.
func (s *Selector) localOutside(family netip.Addr) bool {
	covered := func(r AddrRange) bool {
		if s.index != nil && s.index.remote != nil {
			return s.index.remote.covers(r)
		}
		return coversAddrs(s.Remote, r)
	}
	if len(s.Local) == 0 {
		return !covered(wholeFamily(family))
	}
	return slices.ContainsFunc(s.Local, func(l AddrRange) bool {
		return l.First.BitLen() == family.BitLen() && !covered(l)
	})
}
