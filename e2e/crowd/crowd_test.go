package crowd

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/ike"
)

// crowd is many callers, each with an address and an identity of its own, in
// one key exchange on real sockets. It has the keys and seals nothing.
type crowd struct {
	t testing.TB
	s *ike.Server

	mu      sync.Mutex
	began   map[string]time.Time
	took    []time.Duration
	fails   map[string]int
	seen    map[ike.EventKind]int
	done    ike.EventKind // what a call is for; default: its child
	missing int           // calls that have failed
	moved   chan struct{} // something has changed
	stop    func()
}

// callerName is the identity and the ike block of the i-th.
func callerName(i int) string { return fmt.Sprintf("c%d.example", i) }

// callerAddr is in 10.80.0.0/12.
func callerAddr(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 80 + byte(i>>16), byte(i >> 8), byte(i)})
}

func caller(i int, psk []byte) *ike.Peer {
	id, _ := ike.ParseIdentity(callerName(i))
	return &ike.Peer{Name: callerName(i), Endpoint: netip.AddrPortFrom(serverAddr, 0), Local: callerAddr(i), LocalID: id,
		RemoteID: "server.example", PSK: psk, Children: []*ike.Child{{Name: "crowd", Mode: ike.Transport}}}
}

// gather makes n callers in a host; change, if any, is done to each.
func gather(t testing.TB, h *lab.Host, n int, change func(int, *ike.Peer)) *crowd {
	t.Helper()
	c := &crowd{t: t, began: map[string]time.Time{}, fails: map[string]int{}, seen: map[ike.EventKind]int{}, done: ike.ChildUp, moved: make(chan struct{}, 1)}
	var peers []*ike.Peer
	for i := range n {
		p := caller(i, []byte(secret))
		if change != nil {
			change(i, p)
		}
		peers = append(peers, p)
	}
	if err := h.Do(func() (err error) {
		c.s, err = ike.Listen(ike.ServerConfig{Config: ike.Config{Peers: peers, Rand: rand.Reader}, Event: c.event})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { c.s.Run(ctx, 0); close(done) }()
	c.stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(c.stop)
	return c
}

func (c *crowd) event(e ike.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[e.Kind]++
	began, waits := c.began[e.Peer]
	switch {
	case waits && e.Failure != ike.NoFailure:
		c.missing++
	case waits && e.Kind == c.done:
		c.took = append(c.took, time.Since(began))
	default:
		waits = false
	}
	if e.Failure != ike.NoFailure {
		c.fails[e.Failure.String()]++
	}
	if waits {
		delete(c.began, e.Peer)
	}
	select {
	case c.moved <- struct{}{}:
	default:
	}
}

// count is how many events of a kind there were.
func (c *crowd) count(k ike.EventKind) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen[k]
}

// call has one of them call the server.
func (c *crowd) call(i int) {
	c.t.Helper()
	name := callerName(i)
	c.mu.Lock()
	c.began[name] = time.Now()
	c.mu.Unlock()
	var bad error
	if err := c.s.Call(func(k *ike.Core, now time.Time) (o ike.Output) {
		o, bad = k.Initiate(now, ike.Call{Peer: name, Child: "crowd"})
		return o
	}); err != nil || bad != nil {
		c.t.Fatal(err, bad)
	}
}

// waiting is how many calls are neither up nor have failed.
func (c *crowd) waiting() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.began)
}

// callAll has callers from to to-1 call, at most width at a time, and waits for
// the outcome of all.
func (c *crowd) callAll(from, to, width int, limit time.Duration) {
	c.t.Helper()
	end := time.After(limit)
	for i := from; i < to || c.waiting() > 0; {
		for i < to && c.waiting() < width {
			c.call(i)
			i++
		}
		select {
		case <-c.moved:
		case <-time.After(100 * time.Millisecond):
		case <-end:
			return
		}
	}
}

// delays are the times from a call to its child, in order, and how many failed
// or are still waiting. It begins anew.
func (c *crowd) delays() (took []time.Duration, missing int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	took, missing = c.took, c.missing+len(c.began)
	slices.Sort(took)
	c.took, c.began, c.missing = nil, map[string]time.Time{}, 0
	return took, missing
}

// part gives a quantile of what is in order.
func part(list []time.Duration, q float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	return list[min(len(list)-1, int(q*float64(len(list))))]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
