package host

import (
	"context"
	"sync"
	"time"
)

// ring is the last events, for any number of readers. Writers never wait for
// a reader: a reader who is overtaken is told how many events it lost. The
// packet path writes here, so add allocates nothing.
type ring struct {
	mu      sync.Mutex
	buf     []Event
	next    uint64 // Seq of the event to come; the first is 1
	oldest  uint64 // Seq of the first that is still there; next: none is
	bytes   int    // of the texts of those that are there
	readers map[*ringReader]struct{}
	closed  bool
	lost    uint64 // events that some reader lost, of all readers
}

// maxEventBytes bounds the texts of the events in a ring: some are about what
// strangers have sent. The newest event is kept, however long it is.
const maxEventBytes = 4 << 20

func newRing(size int) *ring {
	return &ring{buf: make([]Event, size), next: 1, oldest: 1, readers: map[*ringReader]struct{}{}}
}

// add writes the event and gives it its Seq and, if it has none, its time.
func (r *ring) add(e *Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e.Seq = r.next
	size := e.textBytes()
	for r.held() == uint64(len(r.buf)) || r.held() > 0 && r.bytes+size > maxEventBytes {
		r.forget()
	}
	r.bytes += size
	r.buf[r.next%uint64(len(r.buf))] = *e
	r.next++
	for rd := range r.readers {
		rd.poke()
	}
}

// forget takes the oldest event out.
func (r *ring) forget() {
	e := &r.buf[r.oldest%uint64(len(r.buf))]
	r.bytes -= e.textBytes()
	*e = Event{}
	r.oldest++
}

// close lets readers run to the end and then stop.
func (r *ring) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for rd := range r.readers {
		rd.poke()
	}
}

// counts gives the number of events so far and how many readers lost.
func (r *ring) counts() (written, lost uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.next - 1, r.lost
}

// ringReader is one reader's place in the ring. Use it from one goroutine.
type ringReader struct {
	ring *ring
	pos  uint64 // Seq of the next event to read
	wake chan struct{}
}

// reader starts a reader that gets the last `back` events first.
func (r *ring) reader(back uint64) *ringReader {
	r.mu.Lock()
	defer r.mu.Unlock()
	rd := &ringReader{ring: r, wake: make(chan struct{}, 1)}
	rd.pos = r.next - min(back, r.held())
	r.readers[rd] = struct{}{}
	return rd
}

// held is how many events are still in the ring.
func (r *ring) held() uint64 { return r.next - r.oldest }

func (rd *ringReader) poke() {
	select {
	case rd.wake <- struct{}{}:
	default: // it is awake already
	}
}

func (rd *ringReader) close() {
	rd.ring.mu.Lock()
	defer rd.ring.mu.Unlock()
	delete(rd.ring.readers, rd)
}

// read copies what is there to dst, without waiting. end says that nothing
// more will ever come.
func (rd *ringReader) read(dst []Event) (n int, end bool) {
	r := rd.ring
	r.mu.Lock()
	defer r.mu.Unlock()
	if rd.pos < r.oldest {
		r.lost += r.oldest - rd.pos
		rd.pos = r.oldest
	}
	for n < len(dst) && rd.pos < r.next {
		dst[n] = r.buf[rd.pos%uint64(len(r.buf))]
		n++
		rd.pos++
	}
	return n, n == 0 && r.closed
}

// follow calls each with every batch of events until the ring is closed, ctx
// ends, or each returns an error, which it returns.
func (rd *ringReader) follow(ctx context.Context, each func([]Event) error) error {
	batch := make([]Event, 64)
	for {
		n, end := rd.read(batch)
		if end {
			return nil
		}
		if n > 0 {
			if err := each(batch[:n]); err != nil {
				return err
			}
			continue
		}
		select {
		case <-rd.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// size is how many events the ring keeps.
func (r *ring) size() uint64 { return uint64(len(r.buf)) }
