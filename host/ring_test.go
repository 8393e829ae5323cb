package host

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
)

func addN(r *ring, n int) {
	for range n {
		r.add(&Event{Kind: KindPacket})
	}
}

func seqs(rd *ringReader, room int) (got []uint64) {
	buf := make([]Event, room)
	n, _ := rd.read(buf)
	for _, e := range buf[:n] {
		got = append(got, e.Seq)
	}
	return got
}

func TestRingReadsInOrder(t *testing.T) {
	for _, c := range []struct {
		name               string
		size, before, back int
		after, room        int
		first, last        uint64 // 0, 0: nothing
		lost               uint64
	}{
		{"empty", 4, 0, 4, 0, 8, 0, 0, 0},
		{"only what comes", 4, 3, 0, 2, 8, 4, 5, 0},
		{"some history", 4, 3, 2, 1, 8, 2, 4, 0},
		{"more history than there is", 8, 3, 100, 0, 8, 1, 3, 0},
		{"more history than is kept", 4, 10, 100, 0, 8, 7, 10, 0},
		{"overtaken", 4, 0, 0, 10, 8, 7, 10, 6},
		{"exactly full", 4, 0, 0, 4, 8, 1, 4, 0},
		{"little room", 4, 0, 0, 4, 2, 1, 2, 0},
	} {
		r := newRing(c.size)
		addN(r, c.before)
		rd := r.reader(uint64(c.back))
		addN(r, c.after)
		got := seqs(rd, c.room)
		var want []uint64
		for s := c.first; s != 0 && s <= c.last; s++ {
			want = append(want, s)
		}
		if len(got) != len(want) || len(got) > 0 && (got[0] != want[0] || got[len(got)-1] != c.last) {
			t.Errorf("%s: read %v, want %v", c.name, got, want)
		}
		if _, lost := r.counts(); lost != c.lost {
			t.Errorf("%s: %d lost, want %d", c.name, lost, c.lost)
		}
	}
}

func TestRingFollowEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRing(8)
		var got int
		done := make(chan error)
		go func() {
			done <- r.reader(0).follow(t.Context(), func(es []Event) error { got += len(es); return nil })
		}()
		synctest.Wait()
		addN(r, 3)
		synctest.Wait()
		r.close()
		if err := <-done; err != nil || got != 3 {
			t.Errorf("follow saw %d events and ended with %v, want 3 and nil", got, err)
		}

		ctx, cancel := context.WithCancel(t.Context())
		go func() { done <- newRing(1).reader(0).follow(ctx, nil) }()
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled follow ended with %v", err)
		}
	})
}

// A reader that never reads must not hold up writers, and one that reads
// sees every event once or is told of it as lost.
func TestRingManyWriters(t *testing.T) {
	const writers, each = 8, 2000
	r := newRing(64)
	r.reader(0) // never reads
	rd := r.reader(0)
	var got uint64
	done := make(chan struct{})
	go func() {
		defer close(done)
		var last uint64
		rd.follow(context.Background(), func(es []Event) error {
			for _, e := range es {
				if e.Seq <= last {
					t.Errorf("event %d after %d", e.Seq, last)
				}
				last = e.Seq
				got++
			}
			return nil
		})
	}()
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() { addN(r, each) })
	}
	wg.Wait()
	r.close()
	<-done
	if written, lost := r.counts(); written != writers*each || got+lost != written {
		t.Errorf("%d written, %d read, %d lost", written, got, lost)
	}
}

func TestRingAddDoesNotAllocate(t *testing.T) {
	r := newRing(16)
	r.reader(0)
	e := Event{Kind: KindPacket}
	if n := testing.AllocsPerRun(1000, func() { r.add(&e) }); n != 0 {
		t.Errorf("%v allocations for an event, want 0", n)
	}
}

func TestThrottle(t *testing.T) {
	const second = 1e9
	th := throttle{perSecond: 10, burst: 20}
	for _, c := range []struct {
		name       string
		now        int64
		ask        int
		pass       int
		suppressed uint64
	}{
		{"the burst", 5 * second, 30, 20, 10},
		{"nothing at once", 5 * second, 1, 0, 1},
		{"a tenth of a second brings one", 5.1 * second, 2, 1, 1},
		{"a clock that goes back brings none", 1 * second, 1, 0, 1},
		{"a second brings ten", 6.1 * second, 30, 10, 20},
		{"a year brings the burst", 31536000 * second, 30, 20, 10},
	} {
		pass := 0
		for range c.ask {
			if th.allow(c.now) {
				pass++
			}
		}
		if s := th.take(); pass != c.pass || s != c.suppressed {
			t.Errorf("%s: %d passed and %d suppressed, want %d and %d", c.name, pass, s, c.pass, c.suppressed)
		}
	}
}
