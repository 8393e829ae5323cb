package esp

import "sync"

// Sizes of the replay window in packets (RFC 4303 section 3.4.3 asks for 32 at
// the least). Wide windows cost a bit of memory for each packet of width and
// no time.
const (
	MinWindow     = 32
	MaxWindow     = 8192
	DefaultWindow = 1024 // room for the reordering that several cores and batches make
)

// window is the anti-replay window of an inbound SA, as a ring of words of
// which those that fall out of the window are cleared whole (RFC 6479). Check
// comes before authentication and changes nothing; Mark comes after, and is
// the one that decides, because another core may have been faster.
type window struct {
	mu    sync.Mutex
	size  uint64 // packets
	esn   bool
	off   bool // no anti-replay: keys set by hand (RFC 4303 section 5)
	ended bool // another has taken over
	top   uint64
	ring  []uint64 // a power of two of words, more than size/64
}

// init makes the window; numbers up to top count as seen.
func (w *window) init(size int, esn, off bool, top uint64) {
	w.size, w.esn, w.off, w.top = uint64(size), esn, off, top
	words := 2
	for words*64 < size+64 {
		words *= 2
	}
	w.ring = make([]uint64, words)
	for i := range w.ring {
		if top > 0 {
			w.ring[i] = ^uint64(0)
		}
	}
	for i := top + 1; top > 0 && i%64 != 0; i++ {
		w.ring[i/64&uint64(words-1)] &^= 1 << (i % 64)
	}
}

// Check gives the whole sequence number of which low is the low half, and says
// whether it may still be accepted.
func (w *window) Check(low uint32) (uint64, Fault) {
	w.mu.Lock() // and no defer, which costs as much again
	seq, f := w.check(low)
	w.mu.Unlock()
	return seq, f
}

func (w *window) check(low uint32) (uint64, Fault) {
	seq := uint64(low)
	if w.esn {
		var ok bool
		if seq, ok = w.extend(low); !ok {
			return 0, TooOld
		}
	}
	return seq, w.judge(seq)
}

// extend finds the high half of an extended sequence number: RFC 4303,
// appendix A2.2. It fails where the number would lie before the first.
func (w *window) extend(low uint32) (seq uint64, ok bool) {
	topLow, topHigh := uint32(w.top), w.top>>32
	bottom := topLow - uint32(w.size) + 1 // modulo 2^32, as the RFC has it
	if uint64(topLow) >= w.size-1 {
		if low < bottom { // case A: the window lies in one subspace
			topHigh++
		}
	} else if low >= bottom { // case B: it straddles two
		if topHigh == 0 {
			return 0, false
		}
		topHigh--
	}
	return topHigh<<32 | uint64(low), true
}

func (w *window) judge(seq uint64) Fault {
	switch {
	case w.off:
		return OK
	case w.ended:
		return TooOld
	case seq == 0: // the first number is 1: RFC 4303 section 3.3.3
		return TooOld
	case seq > w.top:
		return OK
	case w.top-seq >= w.size:
		return TooOld
	case w.ring[seq/64&uint64(len(w.ring)-1)]&(1<<(seq%64)) != 0:
		return Replay
	}
	return OK
}

// Mark takes note that an authentic packet with this number has come.
func (w *window) Mark(seq uint64) Fault {
	w.mu.Lock()
	f := w.mark(seq)
	w.mu.Unlock()
	return f
}

func (w *window) mark(seq uint64) Fault {
	if f := w.judge(seq); f != OK {
		return f
	}
	mask := uint64(len(w.ring) - 1)
	if seq > w.top {
		// Clear the words between the old top and the new one.
		n := min(seq/64-w.top/64, uint64(len(w.ring)))
		for i := uint64(1); i <= n; i++ {
			w.ring[(w.top/64+i)&mask] = 0
		}
		w.top = seq
	}
	w.ring[seq/64&mask] |= 1 << (seq % 64)
	return OK
}

// end makes the window take nothing more, and gives the highest number that has come.
func (w *window) end() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	return w.top
}

// resume makes it take numbers again; those up to top count as seen.
func (w *window) resume(top uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = false
	if top > w.top {
		w.init(int(w.size), w.esn, w.off, top)
	}
}

// Top is the highest number that has come.
func (w *window) Top() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.top
}
