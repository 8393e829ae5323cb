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
	key    leaseKey
	holder uint64 // ID of the IKE SA; 0: free
	freed  uint64 // order in which leases became free
}

// An identity has as many leases as it has IKE SAs that want one: each of its devices
// has its own, and an address is never at two IKE SAs.
type leases struct {
	m     map[leaseKey][]*lease // by who, oldest first
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
	return leases{m: map[leaseKey][]*lease{}, taken: map[netip.Addr]leaseKey{}, pools: map[netip.Prefix]*pool{}, freed: map[string][]freedLease{}}
}

// of finds the lease of an IKE SA.
func (l *leases) of(k leaseKey, holder uint64) *lease {
	for _, x := range l.m[k.who()] {
		if x.holder == holder {
			return x
		}
	}
	return nil
}

func (l *leases) release(k leaseKey, holder uint64) {
	if x := l.of(k, holder); x != nil {
		l.clock++
		x.holder, x.freed = 0, l.clock
		list := append(l.freed[k.peer], freedLease{x, l.clock})
		if len(list) > 2*len(l.taken)+64 { // most of them have been held again since
			list = slices.DeleteFunc(list, func(f freedLease) bool { return !l.waits(f) })
		}
		l.freed[k.peer] = list
	}
}

func (l *leases) pass(k leaseKey, from, to uint64) {
	if x := l.of(k, from); x != nil {
		x.holder = to
	}
}

// ofOthers gives an address within selectors that is lent, but not to the holder of
// k. Who has it may have left: it stays that one's own until the pool runs out.
func (l *leases) ofOthers(k leaseKey, list []TrafficSelector) (netip.Addr, bool) {
	others := func(a netip.Addr) bool {
		_, lent := l.taken[a]
		return lent && a != k.ip4 && a != k.ip6
	}
	for _, t := range list {
		if t.First == t.Last {
			if others(t.First) {
				return t.First, true
			}
			continue
		}
		for a := range l.taken {
			if t.First.BitLen() == a.BitLen() && t.First.Compare(a) <= 0 && a.Compare(t.Last) <= 0 && others(a) {
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
	return f.holder == 0 && f.lease.freed == f.at && slices.Contains(l.m[f.key.who()], f.lease)
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
		who := f.key.who()
		if l.m[who] = slices.DeleteFunc(l.m[who], func(x *lease) bool { return x == f.lease }); len(l.m[who]) == 0 {
			delete(l.m, who)
		}
		return true
	}
	return false
}

// forget takes back all leases of a peer block.
func (l *leases) forget(peer string) {
	for k, list := range l.m {
		if k.peer != peer {
			continue
		}
		for _, x := range list {
			for _, a := range x.key.addrs() {
				l.free(a)
			}
		}
		delete(l.m, k)
	}
	delete(l.freed, peer)
	clear(l.pools) // another policy may have others
}

// loan is what an IKE SA asks of a pool.
type loan struct {
	peer         *Peer
	id           Identity
	holder       uint64       // the IKE SA
	from         uint64       // the IKE SA whose lease it takes over; 0: none
	want4, want6 bool         // families
	named        []netip.Addr // addresses that the caller names as its own of before
}

// give finds a lease: that of the IKE SA which this one takes the place of, or one
// that the identity has had and nobody of it holds, if there is one that the caller
// names, or a new one.
func (l *leases) give(a loan) (leaseKey, bool) {
	k := leaseKey{peer: a.peer.Name, id: a.id.folded()}
	var x *lease
	if a.from != 0 {
		x = l.of(k, a.from)
	}
	for _, y := range l.m[k] {
		switch {
		case x != nil && x.holder != 0 || y.holder != 0:
		case x == nil, y.named(a.named) && !x.named(a.named):
			x = y
		}
	}
	fresh := x == nil
	if fresh {
		x = &lease{key: k}
	}
	for _, f := range []struct {
		want bool
		is6  bool
		at   *netip.Addr
	}{{a.want4, false, &x.key.ip4}, {a.want6, true, &x.key.ip6}} {
		if !f.want || f.at.IsValid() || !slices.ContainsFunc(a.peer.Pools, func(q netip.Prefix) bool { return q.Addr().Is6() == f.is6 }) {
			continue
		}
		was := x.holder
		x.holder = a.holder // not to be reclaimed
		addr, ok := l.pick(a.peer.Pools, f.is6)
		for !ok && l.reclaim(a.peer.Name) { // until it is of this family
			addr, ok = l.pick(a.peer.Pools, f.is6)
		}
		if x.holder = was; ok {
			*f.at = addr
			l.take(addr, k)
		}
	}
	if len(x.key.addrs()) == 0 {
		return leaseKey{}, false
	}
	if x.holder = a.holder; fresh {
		l.m[k] = append(l.m[k], x)
	}
	return x.key, true
}

// named says that a lease has one of some addresses.
func (x *lease) named(list []netip.Addr) bool {
	return slices.ContainsFunc(list, func(a netip.Addr) bool { return a == x.key.ip4 || a == x.key.ip6 })
}
