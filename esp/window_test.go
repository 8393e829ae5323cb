package esp

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// slowWindow is the replay window as RFC 4303 section 3.4.3 tells it: a set of
// the numbers seen.
type slowWindow struct {
	size, top uint64
	esn       bool
	seen      map[uint64]bool
}

func (w *slowWindow) judge(seq uint64) Fault {
	switch {
	case seq == 0 || seq+w.size <= w.top:
		return TooOld
	case w.seen[seq]:
		return Replay
	}
	return OK
}

// guess finds the whole number of low by trying: it is the one, among those
// with this low half, that lies in the window or in the 2^32-size numbers after
// it.
func (w *slowWindow) guess(low uint32) (uint64, bool) {
	if !w.esn {
		return uint64(low), true
	}
	for high := range (w.top >> 32) + 2 {
		seq := high<<32 | uint64(low)
		if int64(seq) > int64(w.top)-int64(w.size) && int64(seq) <= int64(w.top)-int64(w.size)+1<<32 {
			return seq, true
		}
	}
	return 0, false
}

func TestWindow(t *testing.T) {
	for _, size := range []int{32, 33, 64, 100, 1024, 8192} {
		for _, esn := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d/esn=%t", size, esn), func(t *testing.T) {
				r := rand.New(rand.NewPCG(uint64(size), 1))
				var w window
				w.init(size, esn, false, 0)
				slow := slowWindow{size: uint64(size), esn: esn, seen: map[uint64]bool{}}
				if esn { // near the end of a half
					w.top = 3<<32 - 5000
					slow.top = w.top
				}
				for i := range 20000 {
					step := int64(size) + 40
					switch i % 100 {
					case 0:
						step = 3 * int64(size)
					case 1:
						step = 200
					}
					seq := uint64(max(0, int64(slow.top)-step+r.Int64N(step+step/3+2)))
					low := uint32(seq)
					got, f := w.Check(low)
					whole, ok := slow.guess(low)
					want := TooOld
					if ok {
						want = slow.judge(whole)
					}
					if f != want || f == OK && got != whole {
						t.Fatalf("check %d at top %d: %d %v, want %d %v", low, slow.top, got, f, whole, want)
					}
					if f != OK {
						continue
					}
					if r.IntN(3) == 0 {
						continue // not authentic
					}
					if f := w.Mark(got); f != OK {
						t.Fatalf("mark %d at top %d: %v", got, slow.top, f)
					}
					if f := w.Mark(got); f != Replay {
						t.Fatalf("mark %d twice: %v", got, f)
					}
					slow.seen[whole] = true
					slow.top = max(slow.top, whole)
				}
				if w.Top() != slow.top || esn && slow.top < 3<<32 {
					t.Errorf("top %d, want %d", w.Top(), slow.top)
				}
			})
		}
	}
}

// TestWindowESN: the cases of RFC 4303, appendix A2.2.
func TestWindowESN(t *testing.T) {
	for _, c := range []struct {
		top  uint64
		low  uint32
		want uint64
		f    Fault
	}{
		{0, 1, 1, OK},
		{0, 0, 0, TooOld},
		{0, 0xffffffff, 0, TooOld}, // before the first number
		{10, 0xfffffff0, 0, TooOld},
		{1 << 32, 0xffffffff, 0xffffffff, OK},             // case B: the window straddles
		{1 << 32, 5, 1<<32 + 5, OK},                       // case B: ahead
		{1<<32 + 1000, 950, 1<<32 + 950, OK},              // case A: in the window
		{1<<32 + 1000, 100, 2<<32 + 100, OK},              // case A: far behind is next time round
		{1<<32 - 1, 0, 1 << 32, OK},                       // one on
		{5<<32 + 1000, 0xffffffff, 5<<32 + 1<<32 - 1, OK}, // case A: far ahead
	} {
		var w window
		w.init(64, true, false, 0)
		w.top = c.top
		if got, f := w.Check(c.low); f != c.f || got != c.want {
			t.Errorf("top %#x, low %#x: %#x %v, want %#x %v", c.top, c.low, got, f, c.want, c.f)
		}
	}
}
