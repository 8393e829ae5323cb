package host

import (
	"context"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/ipfw/ipfw/ike"
)

// names are the addresses of peers that the policy knows by DNS names. The
// host's own resolver is asked, with all that it knows (/etc/hosts, nsswitch);
// it does not say how long an answer holds, so that it is asked again and again.
type names struct {
	lookup func(context.Context, string) ([]netip.Addr, error)

	mu    sync.Mutex
	known map[string]netip.Addr // the zero Addr: has none now
}

// resolvePeriod is how often names are looked up again. A host that moves is
// called at its new address a minute later at most; what is up is not touched.
const (
	resolvePeriod = time.Minute
	resolveTime   = 20 * time.Second
)

func newNames() *names {
	return &names{known: map[string]netip.Addr{}, lookup: func(ctx context.Context, name string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	}}
}

// want says of which peers the names are needed.
func (n *names) want(peers []ikePeer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	next := map[string]netip.Addr{}
	for _, p := range peers {
		for _, e := range p.block.Remote {
			if e.Name != "" {
				next[e.Name] = n.known[e.Name]
			}
		}
	}
	n.known = next
}

// resolve looks all names up, and says whether any has another address now. A
// name that cannot be looked up keeps the one it had.
func (n *names) resolve(ctx context.Context) bool {
	n.mu.Lock()
	list := slices.Sorted(maps.Keys(n.known))
	n.mu.Unlock()
	changed := false
	for _, name := range list {
		ctx, cancel := context.WithTimeout(ctx, resolveTime)
		found, err := n.lookup(ctx, name)
		cancel()
		if err != nil || len(found) == 0 {
			continue
		}
		for i := range found {
			found[i] = found[i].Unmap().WithZone("")
		}
		n.mu.Lock()
		// One of several stays as long as it is among them.
		if was, wanted := n.known[name]; wanted && !slices.Contains(found, was) {
			n.known[name], changed = found[0], true
		}
		n.mu.Unlock()
	}
	return changed
}

// follow looks names up until ctx ends, and calls moved when one has another
// address.
func (n *names) follow(ctx context.Context, kick <-chan struct{}, moved func()) {
	t := time.NewTicker(resolvePeriod)
	defer t.Stop()
	for {
		if n.resolve(ctx) {
			moved()
		}
		select {
		case <-t.C:
		case <-kick:
		case <-ctx.Done():
			return
		}
	}
}

// place gives the peers with the addresses that they have now, for the key
// exchange to keep, and whom to call by ike block.
func (n *names) place(peers []ikePeer) (list []*ike.Peer, call map[string]netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	call = map[string]netip.Addr{}
	for _, p := range peers {
		q := *p.Peer
		q.Children = slices.Clone(p.Children)
		for i, ch := range q.Children {
			own := *ch
			q.Children[i] = &own
		}
		q.Endpoint, q.From = endpointsOf(p.block, func(name string) netip.Addr { return n.known[name] })
		if q.Endpoint.IsValid() {
			call[q.Name] = q.Endpoint.Addr()
		}
		list = append(list, &q)
	}
	return list, call
}
