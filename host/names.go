package host

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/ipfw/ipfw/ike"
	"github.com/ipfw/ipfw/rules"
)

// names are the addresses of peers that the policy knows by DNS names. Each is
// looked up again when its records expire.
type names struct {
	lookup func(context.Context, string) ([]netip.Addr, time.Duration, error)
	tell   func(string)

	mu    sync.Mutex
	known map[string]*name
}

// name is what is known of one.
type name struct {
	addr   netip.Addr // the zero Addr: none yet
	next   time.Time  // when to ask again; zero: at once
	failed bool       // the last time, and that was said
}

// How long an answer counts. What nobody gives a time for, as what /etc/hosts
// has, is looked at once in a minute; a name without an answer, twice.
const (
	ttlFloor      = 5 * time.Second
	ttlCeiling    = time.Hour
	resolvePeriod = time.Minute
	resolveRetry  = 30 * time.Second
	resolveTime   = 20 * time.Second
	resolveAtOnce = 8 // names that are asked for at the same time
)

func newNames(tell func(string)) *names {
	return &names{known: map[string]*name{}, lookup: lookup, tell: tell}
}

// want says of which peers the names are needed.
func (n *names) want(peers []ikePeer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	next := map[string]*name{}
	for _, p := range peers {
		for _, e := range p.block.Remote {
			if e.Name == "" {
				continue
			}
			if next[e.Name] = n.known[e.Name]; next[e.Name] == nil {
				next[e.Name] = &name{}
			}
		}
	}
	n.known = next
}

// addr gives the address of a name; the zero Addr: it has none.
func (n *names) addr(s string) netip.Addr {
	if x := n.known[s]; x != nil {
		return x.addr
	}
	return netip.Addr{}
}

// resolve looks up the names whose time has come, and says whether any has
// another address, and when the next is due; the zero time: never.
func (n *names) resolve(ctx context.Context, now time.Time) (changed bool, next time.Time) {
	n.mu.Lock()
	var due []string
	for _, s := range slices.Sorted(maps.Keys(n.known)) {
		if !n.known[s].next.After(now) {
			due = append(due, s)
		}
	}
	n.mu.Unlock()
	places := make(chan struct{}, resolveAtOnce)
	var all sync.WaitGroup
	results := make([]bool, len(due))
	for i, s := range due {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			ask, cancel := context.WithTimeout(ctx, resolveTime)
			defer cancel()
			found, ttl, err := n.lookup(ask, s)
			if ctx.Err() == nil {
				results[i] = n.learn(s, now, found, ttl, err)
			}
		})
	}
	all.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, x := range n.known {
		if next.IsZero() || x.next.Before(next) {
			next = x.next
		}
	}
	return slices.Contains(results, true), next
}

// learn takes an answer and says whether the name has another address now. One
// of several stays as long as it is among them. A name that cannot be looked up
// keeps the address it had.
func (n *names) learn(s string, now time.Time, found []netip.Addr, ttl time.Duration, err error) bool {
	for i := range found {
		found[i] = found[i].Unmap().WithZone("")
	}
	found = slices.DeleteFunc(found, func(a netip.Addr) bool { return a.Is6() && a.IsLinkLocalUnicast() }) // another host on each link
	n.mu.Lock()
	defer n.mu.Unlock()
	x := n.known[s]
	if x == nil {
		return false // the policy does not name it any more
	}
	if err != nil || len(found) == 0 {
		x.next = now.Add(resolveRetry)
		if !x.failed {
			x.failed = true
			n.tell(fmt.Sprintf("the name %s cannot be looked up, %s: %v", s, x.keeps(), err))
		}
		return false
	}
	if x.next = now.Add(min(max(ttl, ttlFloor), ttlCeiling)); ttl == 0 {
		x.next = now.Add(resolvePeriod)
	}
	if x.failed {
		x.failed = false
		n.tell(fmt.Sprintf("the name %s is looked up again", s))
	}
	if slices.Contains(found, x.addr) {
		return false
	}
	if x.addr.IsValid() {
		n.tell(fmt.Sprintf("the name %s leads to %s now, no more to %s", s, found[0], x.addr))
	}
	x.addr = found[0]
	return true
}

// keeps says what becomes of a name without an answer.
func (x *name) keeps() string {
	if x.addr.IsValid() {
		return "and counts as " + x.addr.String() + " still"
	}
	return "and the peer cannot be called"
}

// follow looks names up until ctx ends, and calls moved when one has another
// address.
func (n *names) follow(ctx context.Context, kick <-chan struct{}, moved func()) {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-kick:
		case <-ctx.Done():
			return
		}
		changed, next := n.resolve(ctx, time.Now())
		if changed {
			moved()
		}
		t.Stop()
		if !next.IsZero() {
			t.Reset(max(time.Second, time.Until(next)))
		}
	}
}

// whereabouts are where the peers of an ike block are.
type whereabouts struct {
	call  netip.Addr     // the zero Addr: nobody is called, or its name has no address yet
	from  []netip.Prefix // where else they may be
	named bool           // the policy has a DNS name for one
}

// has says that a peer may be at an address. Without names the policy itself tells,
// and a name without an address may get one.
func (w whereabouts) has(a netip.Addr) bool {
	return !w.named || !w.call.IsValid() || w.call == a || slices.ContainsFunc(w.from, func(p netip.Prefix) bool { return p.Contains(a) })
}

// place gives the peers with the addresses that they have now, for the key
// exchange to keep, and where they are by ike block.
func (n *names) place(peers []ikePeer) (list []*ike.Peer, at map[string]whereabouts) {
	n.mu.Lock()
	defer n.mu.Unlock()
	at = map[string]whereabouts{}
	for _, p := range peers {
		q := *p.Peer
		q.Children = slices.Clone(p.Children)
		for i, ch := range q.Children {
			own := *ch
			q.Children[i] = &own
		}
		q.Endpoint, q.From = endpointsOf(p.block, n.addr)
		q.Named = slices.ContainsFunc(p.block.Remote, func(e rules.Endpoint) bool { return e.Name != "" })
		at[q.Name] = whereabouts{q.Endpoint.Addr(), q.From, q.Named}
		list = append(list, &q)
	}
	return list, at
}
