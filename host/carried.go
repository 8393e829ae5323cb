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

// carried tells the engine what the kernel has carried of offloaded flows: of
// those that have ended, and of all others when they are asked for or it is
// time again.
func (d *daemon) carried(live bool) {
	c := &d.census
	c.mu.Lock()
	defer c.mu.Unlock()
	began := time.Now()
	live = live || began.After(c.next)
	now := d.now()
	err := d.firewall.Carried(live, func(f *engine.Carried) { d.engine.Carried(now, f) })
	if live {
		c.next = time.Now().Add(max(censusEvery, censusShare*time.Since(began)))
	}
	if err != nil && !c.told {
		d.o.Logger.Warn("the kernel does not tell what it carries: counters of offloaded flows stand still", "error", err)
	}
	c.told = err != nil
}
