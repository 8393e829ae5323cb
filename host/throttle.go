package host

import "sync"

// throttle is a token bucket that spares the log: whoever sends bad packets
// must not be able to fill a disk. Safe for concurrent use.
type throttle struct {
	mu         sync.Mutex
	perSecond  int64
	burst      int64
	level      int64 // tokens, in billionths
	last       int64 // nanoseconds
	started    bool
	suppressed uint64
}

// allow takes one token at time now (nanoseconds on any steady clock), or
// counts one suppressed.
func (t *throttle) allow(now int64) bool {
	const one = 1e9
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.started {
		t.started, t.level, t.last = true, t.burst*one, now
	}
	if d := now - t.last; d > 0 {
		// After burst/perSecond seconds the bucket is full, however long
		// ago it was; that also keeps the product from overflowing.
		if d >= t.burst*one/t.perSecond {
			t.level = t.burst * one
		} else {
			t.level = min(t.burst*one, t.level+d*t.perSecond)
		}
		t.last = now
	}
	if t.level < one {
		t.suppressed++
		return false
	}
	t.level -= one
	return true
}

// allowAt is allow at a rate that may have changed: perSecond tokens in a
// second, and those of so many seconds at once; 0 means no limit.
func (t *throttle) allowAt(perSecond uint32, seconds, now int64) bool {
	if perSecond == 0 {
		return true
	}
	t.mu.Lock()
	t.perSecond, t.burst = int64(perSecond), int64(perSecond)*seconds
	t.mu.Unlock()
	return t.allow(now)
}

// take gives how many were suppressed since the last call.
func (t *throttle) take() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.suppressed
	t.suppressed = 0
	return n
}
