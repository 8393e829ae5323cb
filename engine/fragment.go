package engine

import (
	"net/netip"
	"sync"
)

// Fragments that reach the engine (a dry run; another hook order than ours), but
// those that have just come out of an SA (see reassembler), are judged by their first fragment, which alone holds the ports. Whoever
// comes before it, or lies over bytes already seen, is dropped (RFC 1858, RFC
// 3128, RFC 5722).

const (
	defaultMaxFragments = 4096
	fragmentTimeout     = 30 * second
	maxSpans            = 16 // pieces of one datagram with gaps between them
)

// fragmentKey names one datagram (RFC 791 section 3.2, RFC 8200 section 4.5).
type fragmentKey struct {
	src, dst netip.Addr
	id       uint32
	proto    uint8 // always 0 for IPv6, whose key has none
	dir      Direction
	opened   bool
	sa       string // that it came out of: pieces under one SA never join those under another
}

// datagram is what is known of one fragmented datagram.
type datagram struct {
	expires int64
	verdict Result // of its first fragment
	spans   [maxSpans]byteSpan
	n       uint8
	poison  bool // overlapped: nothing more of it passes
}

type byteSpan struct{ first, end int32 }

type fragmentTable struct {
	sync.Mutex
	datagrams map[fragmentKey]*datagram
	max       int
}

func (t *fragmentTable) init(most int) {
	if most <= 0 {
		most = defaultMaxFragments
	}
	t.datagrams = make(map[fragmentKey]*datagram)
	t.max = most
}

func (t *fragmentTable) expire(now int64) {
	t.Lock()
	defer t.Unlock()
	for k, d := range t.datagrams {
		if d.expires <= now {
			delete(t.datagrams, k)
		}
	}
}

// judgeFragment judges a fragment: the first as if it were whole, the later
// ones like the first.
func (e *Engine) judgeFragment(s *spd, in *Input) Result {
	p := &in.Packet
	key := fragmentKey{src: p.Src, dst: p.Dst, id: p.FragID, dir: in.Dir, opened: in.Opened, sa: in.SA}
	if p.Version == 4 {
		key.proto = p.Protocol
	}
	t := &e.fragments
	t.Lock()
	defer t.Unlock()
	d := t.datagrams[key]
	if d != nil && d.expires <= in.Now {
		delete(t.datagrams, key)
		d = nil
	}
	if p.LaterFragment() {
		switch {
		case d == nil:
			return Result{Reason: ReasonFragmentOrphan, Rule: NoRule}
		case !d.add(p.FragOffset, p.Len-p.Transport):
			return Result{Reason: ReasonFragmentOverlap, Rule: NoRule}
		}
		r := d.verdict
		r.NewFlow, r.Log, r.Reject = false, false, false
		return r
	}

	if d != nil { // a second first fragment
		d.poison = true
		return Result{Reason: ReasonFragmentOverlap, Rule: NoRule}
	}
	if len(t.datagrams) >= t.max {
		return Result{Reason: ReasonFragmentFull, Rule: NoRule}
	}
	d = &datagram{expires: in.Now + fragmentTimeout}
	d.add(0, p.Len-p.Transport)
	d.verdict = e.judgeWhole(s, in)
	t.datagrams[key] = d
	return d.verdict
}

// add notes the bytes of a fragment; false if some of them were seen before,
// or if the pieces are too many to keep.
func (d *datagram) add(offset, length int) bool {
	n := byteSpan{int32(offset), int32(offset + length)}
	if d.poison {
		return false
	}
	for i := range d.n {
		if n.first < d.spans[i].end && d.spans[i].first < n.end {
			d.poison = true
			return false
		}
	}
	for i := range d.n {
		switch {
		case d.spans[i].end == n.first:
			d.spans[i].end = n.end
		case d.spans[i].first == n.end:
			d.spans[i].first = n.first
		default:
			continue
		}
		d.close(i)
		return true
	}
	if int(d.n) == len(d.spans) {
		d.poison = true
		return false
	}
	d.spans[d.n] = n
	d.n++
	return true
}

// close makes one span of two between which a gap has just been filled, of which
// the one at i has grown.
func (d *datagram) close(i uint8) {
	for j := range d.n {
		if a, b := &d.spans[i], &d.spans[j]; a.end == b.first || b.end == a.first {
			a.first, a.end = min(a.first, b.first), max(a.end, b.end)
			d.n--
			*b = d.spans[d.n]
			return
		}
	}
}
