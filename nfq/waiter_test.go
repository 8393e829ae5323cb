package nfq

import (
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// newWaiter gives a waiter on one end of a socket pair, and the other end.
func newWaiter(t *testing.T, a *awake) (w *waiter, far int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	w = &waiter{fd: fds[0], wake: -1, awake: a}
	if err := w.openWake(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = w.close(), unix.Close(fds[1]) })
	return w, fds[1]
}

func someAwake(n int32) *awake {
	a := new(awake)
	a.left.Store(n)
	return a
}

func TestWaiterTakesTurns(t *testing.T) {
	a := someAwake(1)
	first, _ := newWaiter(t, a)
	second, _ := newWaiter(t, a)
	for range 2 {
		if !first.lingers() {
			t.Error("the first reader may not wait awake")
		}
		first.since = first.since.Add(time.Hour) // however long this test takes
	}
	if second.lingers() {
		t.Error("a second reader waits awake, where one may")
	}
	first.got(1)
	if !second.lingers() {
		t.Error("the first one has something to do, and the second may not wait awake")
	}
	second.since = time.Now().Add(-2 * linger) // a long time ago
	if second.lingers() {
		t.Error("waits awake for too long")
	}
	if !first.lingers() {
		t.Error("a reader that went to sleep has kept its place")
	}
	first.stop()
	first.resume()
	if n := a.left.Load(); n != 1 {
		t.Errorf("%d places left in the end, want 1", n)
	}
}

// TestLongPause: a flood fills long pauses, and whoever does not fill one is
// left alone for a while.
func TestLongPause(t *testing.T) {
	w, _ := newWaiter(t, someAwake(1))
	step := func(n int, long bool) {
		t.Helper()
		w.got(n)
		if w.full != (n >= burst) {
			t.Fatalf("after %d packets: a pause is %v", n, w.full)
		}
		if w.full {
			w.pause()
			if w.long != long {
				t.Fatalf("after %d packets: a long pause is %v, want %v", n, w.long, long)
			}
		}
	}
	for range 3 {
		step(flood, true)
	}
	step(flood-1, false)
	for range 2 {
		step(1, false) // no burst: nothing changes
		for range holdoff - 1 {
			w.got(burst)
		}
		step(burst, true)
		step(burst, false)
	}
}

// TestWaiter has a reader wait for each of many messages, awake and asleep,
// with a stop now and then.
func TestWaiter(t *testing.T) {
	for _, places := range []int32{0, 1} {
		a := someAwake(places)
		w, far := newWaiter(t, a)
		const total = 2000
		var reader sync.WaitGroup
		next := make(chan struct{}, 1)
		reader.Go(func() {
			b := make([]byte, 16)
			for n := 0; n < total; {
				if w.stopped() {
					w.resume()
				}
				if _, err := unix.Read(w.fd, b); err == unix.EAGAIN {
					w.wait()
					continue
				} else if err != nil {
					t.Errorf("read: %v", err)
					break
				}
				w.got(1 + n%(2*burst))
				n++
				next <- struct{}{}
			}
			w.calm()
		})
		for i := range total {
			if i%100 == 0 {
				time.Sleep(2 * linger) // most likely it sleeps by then
			}
			if i%300 == 0 {
				w.stop()
			}
			if _, err := unix.Write(far, []byte("packet")); err != nil {
				t.Fatal(err)
			}
			<-next
		}
		reader.Wait()
		if n := a.left.Load(); n != places {
			t.Errorf("%d places left in the end, want %d", n, places)
		}
	}
}
