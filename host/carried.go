package host

import (
	"sync"
	"time"

	"github.com/ipfw/ipfw/engine"
)

// census is when the kernel was last asked for all flows that it answers for.
type census struct {
	mu   sync.Mutex
	next time.Time
	told bool // that it cannot be asked
}

// Flows that last are counted at least so often, and the counting takes no
// more than its share of the time: one part in so many.
const (
	censusEvery = 10 * time.Second
	censusShare = 50
)

// answerWithin is how long an answer to somebody who asks waits for others who
// are at work; then it gives what was known before.
const answerWithin = time.Second

// counted is carried for whoever asks what has been counted. While others count,
// or the kernel takes its time, it does not wait for long.
func (d *daemon) counted() {
	done, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		d.census.mu.Lock()
		defer d.census.mu.Unlock()
		select {
		case <-gone: // nobody waits for it any more
		default:
			d.countLocked(true)
		}
	}()
	select {
	case <-done:
	case <-time.After(answerWithin):
		close(gone)
	}
}

// carried tells the engine what the kernel has carried of offloaded flows: of
// those that have ended, and of all others when they are asked for or it is
// time again.
func (d *daemon) carried(live bool) {
	d.census.mu.Lock()
	defer d.census.mu.Unlock()
	d.countLocked(live)
}

// countLocked is carried with d.census.mu held.
func (d *daemon) countLocked(live bool) {
	c := &d.census
	began := time.Now()
	live = live || began.After(c.next)
	now := d.now()
	err := d.firewall.Carried(live, func(f *engine.Carried) { d.engine.Carried(now, f) })
	if live {
		c.next = time.Now().Add(max(censusEvery, censusShare*time.Since(began)))
	}
	if err != nil && !c.told {
		d.log.Warn("the kernel does not tell what it carries: counters of offloaded flows stand still", "error", err)
	}
	c.told = err != nil
}
