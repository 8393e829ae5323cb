package ike

import (
	"net/netip"
	"slices"
)

// leaseKey is who holds a lease: one identity of one peer block, with the
// addresses it holds. The zero key holds nothing.
type leaseKey struct {
	peer     string
	id       Identity
	ip4, ip6 netip.Addr
}

func (k leaseKey) addrs() (out []netip.Addr) {
	for _, a := range []netip.Addr{k.ip4, k.ip6} {
		if a.IsValid() {
			out = append(out, a)
		}
	}
	return out
}

// who is the key without addresses.
func (k leaseKey) who() leaseKey { return leaseKey{peer: k.peer, id: k.id} }

// lease is an address pair that an identity has or had. It stays its own
// until the pool runs out, so that a caller who comes back is who he was.
type lease struct {
	key     leaseKey
	holders map[uint64]struct{} // IDs of IKE SAs; none: free
	freed   uint64              // order in which leases became free
}

type leases struct {
	m     map[leaseKey]*lease // by who
	taken map[netip.Addr]leaseKey
	clock uint64
	pools map[netip.Prefix]*pool
	// freed are leases of a peer block in the order in which they became free.
	freed map[string][]freedLease
}

// pool is what of a prefix is given out, and where the search for a free address
// goes on: a pool of tens of thousands is not searched from its beginning each
// time.
type pool struct {
	first, last, next netip.Addr // first is invalid: there is none
	used, size        int
}

type freedLease struct {
	*lease
	at uint64 // lease.freed; another: it has been held since
}

func newLeases() leases {
	return leases{m: map[leaseKey]*lease{}, taken: map[netip.Addr]leaseKey{}, pools: map[netip.Prefix]*pool{}, freed: map[string][]freedLease{}}
}

func (l *leases) release(k leaseKey, holder uint64) {
	x := l.m[k.who()]
	if x == nil {
		return
	}
	if _, ok := x.holders[holder]; !ok {
		return
	}
	if delete(x.holders, holder); len(x.holders) == 0 {
		l.clock++
		x.freed = l.clock
		list := append(l.freed[k.peer], freedLease{x, l.clock})
		if len(list) > 2*len(l.m)+64 { // most of them have been held again since
			list = slices.DeleteFunc(list, func(f freedLease) bool { return !l.waits(f) })
		}
		l.freed[k.peer] = list
	}
}

func (l *leases) pass(k leaseKey, from, to uint64) {
	x := l.m[k.who()]
	if x == nil {
		return
	}
	if _, ok := x.holders[from]; ok {
		delete(x.holders, from)
		x.holders[to] = struct{}{}
	}
}

// ofOthers gives an address within selectors that somebody else has, who may
// have left: it stays that one's own until the pool runs out.
func (l *leases) ofOthers(k leaseKey, list []TrafficSelector) (netip.Addr, bool) {
	for _, t := range list {
		if t.First == t.Last {
			if who, ok := l.taken[t.First]; ok && who != k.who() {
				return t.First, true
			}
			continue
		}
		for a, who := range l.taken {
			if who != k.who() && t.First.BitLen() == a.BitLen() && t.First.Compare(a) <= 0 && a.Compare(t.Last) <= 0 {
				return a, true
			}
		}
	}
	return netip.Addr{}, false
}

// maxPool bounds how many addresses of a prefix are given out.
const maxPool = 1 << 16

// pool gives the state of a prefix. The network address and the first host,
// which is the gateway's by habit, are left out, and so is the broadcast address.
func (l *leases) pool(p netip.Prefix) *pool {
	if x := l.pools[p]; x != nil {
		return x
	}
	x := &pool{}
	a, end := p.Masked().Addr(), lastOf(p)
	if a != end {
		a = a.Next().Next()
	}
	for ; x.size < maxPool && p.Contains(a) && (a.Is6() || a != end || p.Bits() >= 31); a = a.Next() {
		if x.size++; x.size == 1 {
			x.first, x.next = a, a
		}
		x.last = a
		if _, used := l.taken[a]; used { // by another ike block with the same addresses
			x.used++
		}
	}
	l.pools[p] = x
	return x
}

func (x *pool) has(a netip.Addr) bool {
	return x.size > 0 && a.BitLen() == x.first.BitLen() && x.first.Compare(a) <= 0 && a.Compare(x.last) <= 0
}

// pick finds a free address of a family in the pools.
func (l *leases) pick(pools []netip.Prefix, is6 bool) (netip.Addr, bool) {
	for _, p := range pools {
		if p.Addr().Is6() != is6 {
			continue
		}
		for x := l.pool(p); x.used < x.size; {
			a := x.next
			if x.next = a.Next(); a == x.last {
				x.next = x.first
			}
			if _, used := l.taken[a]; !used {
				return a, true
			}
		}
	}
	return netip.Addr{}, false
}

// take and free keep the books of an address.
func (l *leases) take(a netip.Addr, k leaseKey) {
	l.taken[a] = k
	for _, x := range l.pools {
		if x.has(a) {
			x.used++
		}
	}
}

func (l *leases) free(a netip.Addr) {
	delete(l.taken, a)
	for _, x := range l.pools {
		if x.has(a) {
			x.used--
			x.next = a
		}
	}
}

// waits says that a lease is free, and has been since.
func (l *leases) waits(f freedLease) bool {
	return len(f.holders) == 0 && f.lease.freed == f.at && l.m[f.key.who()] == f.lease
}

// reclaim forgets the lease that has been free for longest.
func (l *leases) reclaim(peer string) bool {
	for len(l.freed[peer]) > 0 {
		f := l.freed[peer][0]
		l.freed[peer] = l.freed[peer][1:]
		if !l.waits(f) {
			continue
		}
		for _, a := range f.key.addrs() {
			l.free(a)
		}
		delete(l.m, f.key.who())
		return true
	}
	return false
}

// forget takes back all leases of a peer block.
func (l *leases) forget(peer string) {
	for k, x := range l.m {
		if k.peer == peer {
			for _, a := range x.key.addrs() {
				l.free(a)
			}
			delete(l.m, k)
		}
	}
	delete(l.freed, peer)
	clear(l.pools) // another policy may have others
}

// give finds a lease for an identity. A second IKE SA of the same identity has
// the lease of the first, which is free when both have ended.
func (l *leases) give(p *Peer, id Identity, holder uint64, want4, want6 bool) (leaseKey, bool) {
	k := leaseKey{peer: p.Name, id: id.folded()}
	x := l.m[k]
	if x == nil {
		x = &lease{key: k, holders: map[uint64]struct{}{}}
	}
	for _, f := range []struct {
		want bool
		is6  bool
		at   *netip.Addr
	}{{want4, false, &x.key.ip4}, {want6, true, &x.key.ip6}} {
		if !f.want || f.at.IsValid() || !slices.ContainsFunc(p.Pools, func(q netip.Prefix) bool { return q.Addr().Is6() == f.is6 }) {
			continue
		}
		a, ok := l.pick(p.Pools, f.is6)
		for !ok && l.reclaim(p.Name) { // until it is of this family
			a, ok = l.pick(p.Pools, f.is6)
		}
		if ok {
			*f.at = a
			l.take(a, k)
		}
	}
	if len(x.key.addrs()) == 0 {
		return leaseKey{}, false
	}
	x.holders[holder] = struct{}{}
	l.m[k] = x
	return x.key, true
}
