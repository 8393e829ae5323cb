package engine

import (
	"net/netip"
	"sync"
)

// maxBuckets bounds the addresses one limit keeps a bucket for. When they are
// all in use, a new address does not match the limited rule.
const maxBuckets = 1 << 16

// limiter is the token buckets of one rule.
type limiter struct {
	Limit
	mu      sync.Mutex
	buckets map[netip.Addr]bucket
	swept   int64 // when sweep last ran
}

// bucket counts in nanoseconds of refill, so that no fraction is lost.
type bucket struct {
	level int64 // nanoseconds' worth of tokens
	at    int64
}

func newLimiter(l Limit) *limiter {
	return &limiter{Limit: l, buckets: make(map[netip.Addr]bucket)}
}

// take takes a token for a packet; false when the packet is over the limit.
func (l *limiter) take(q *query, now int64) bool {
	var key netip.Addr // the zero address: one bucket for all
	switch {
	case l.ByRemote:
		key = q.remoteAddr()
	case l.ByLocal:
		key = q.localAddr()
	}
	cost := max(1, int64(l.Per)/int64(max(1, l.Events)))
	full := cost * int64(max(1, l.Burst))

	l.mu.Lock()
	defer l.mu.Unlock()
	b, ok := l.buckets[key]
	if !ok {
		if len(l.buckets) >= maxBuckets && !l.sweep(now, full) {
			return false
		}
		b = bucket{level: full, at: now}
	}
	b.level = min(full, b.level+max(0, now-b.at))
	b.at = now
	took := b.level >= cost
	if took {
		b.level -= cost
	}
	l.buckets[key] = b
	return took
}

// sweep forgets buckets that are full again, which are as good as none; at
// most once a second, so that a flood of new addresses does not make it cost.
func (l *limiter) sweep(now, full int64) bool {
	if now-l.swept < second {
		return false
	}
	l.swept = now
	for k, b := range l.buckets {
		if b.level+(now-b.at) >= full {
			delete(l.buckets, k)
		}
	}
	return len(l.buckets) < maxBuckets
}
