package host

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/ipfw/ipfw/esp"
)

// dummyLeast is the least that a dummy packet seems to carry, in bytes, and
// dummyMost the most: what fits a link of 1,500 bytes under every suite.
const (
	dummyLeast = 64
	dummyMost  = 1400
)

// dummies sends packets that carry nothing (RFC 4303 section 2.6) by the SAs
// whose ipsec blocks ask for them, until ctx ends. Times and sizes are by
// chance: who watches the wire cannot tell them from others.
func (d *daemon) dummies(ctx context.Context) {
	const step = 5 * time.Millisecond // of the clock that times are rounded to
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	due := map[*esp.SA]time.Time{}
	var buf []byte
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now, wanted := time.Now(), false
		for s, b := range d.keeper.hiding() {
			wanted = true
			for at, ok := due[s]; !ok || !at.After(now); at, ok = due[s] {
				if ok {
					buf = d.dummy(s, b, buf[:0])
				} else {
					at = now
				}
				mean := float64(b.DummiesPer) / float64(b.Dummies)
				due[s] = at.Add(time.Duration(mean * rand.ExpFloat64()))
			}
		}
		for s := range due {
			if s.Closed() {
				delete(due, s)
			}
		}
		if wanted {
			tick.Reset(step)
		} else {
			tick.Reset(time.Second)
		}
	}
}

// dummy sends one. buf is room for it.
func (d *daemon) dummy(s *esp.SA, b *block, buf []byte) []byte {
	size := b.TFC
	if size == 0 {
		size = dummyLeast + rand.IntN(dummyMost-dummyLeast)
	}
	batch, f := s.Reserve(1, d.now())
	if f == esp.OK {
		buf, f = batch.SealDummy(buf, size)
	}
	batch.Done()
	if f != esp.OK {
		return buf // counted by the SA
	}
	if err := d.firewall.Send(buf); err != nil {
		d.o.Logger.Debug("dummy packet not sent", slog.Any("sa", s), slog.Any("error", err))
	}
	return buf
}
