package host

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/rules"
)

// Of packets that no rule logs so many get an event in a second, and so many at
// once: enough to see who is refused what, and too few for anybody to fill a disk or
// to push other events out of memory within an hour.
const (
	sampleRate  = 1
	sampleBurst = 20
)

// setLog puts in force what a policy says of the log.
func (d *daemon) setLog(l *loaded) {
	d.logRate.Store(l.Settings.LogRate)
	d.logWhat.Store(uint32(l.Settings.Log))
}

// sample writes the event of a packet that no rule has asked an event for, if policy
// wants some of its kind, and it is not too many. It runs for every packet that is
// discarded or opens a flow, and allocates nothing.
func (d *daemon) sample(p *engine.Policy, in *engine.Input, r *engine.Result) {
	limit := &d.openings
	if r.Verdict == engine.Discard {
		if !isDropped(r.Reason) {
			return
		}
		if in.Dir != engine.Out {
			d.sources.count(in.Packet.Src, in.Now)
		}
		limit = &d.discards
	}
	switch what := rules.LogWhat(d.logWhat.Load()); {
	case what == rules.LogNone, what == rules.LogDiscards && r.Verdict != engine.Discard, !limit.allow(in.Now):
		return
	}
	if d.engine.Policy() != p {
		p = nil // see note
	}
	e := packetEvent(p, in, r)
	e.Sampled, e.Count = true, limit.take()
	d.ring.add(&e)
}

// isDropped says of a discard that it is what one looks for in a log of dropped
// packets. Others have events of their own, or their packets go on in another form.
func isDropped(r engine.Reason) bool {
	switch r {
	case engine.ReasonRule, engine.ReasonDefault, engine.ReasonFlow, engine.ReasonTCPState, engine.ReasonFlowTableFull,
		engine.ReasonFragmentOrphan, engine.ReasonFragmentOverlap, engine.ReasonFragmentFull, engine.ReasonSourceRoute:
		return true
	}
	return false
}

// sources counts from where discarded packets come: a Space-Saving table (Metwally,
// Agrawal and El Abbadi, 2005). A source that is not in it takes the place of the one
// with the fewest packets, and their number for a start, so that whoever sends much
// is in it whatever else comes. What it has sent itself is told, and not what it has
// taken over: else whoever forges sources chose who is blamed. It costs little while
// packets are few, and a bounded part of a second while they are many.
type sources struct {
	mu    sync.Mutex
	list  [64]source
	since int64 // when the present second began
	done  int   // packets counted in it
}

type source struct {
	addr    netip.Addr
	packets uint64
	before  uint64 // of packets, those that others may have sent
}

// sourcesEach bounds how many packets are counted in a second; what is beyond
// is left out, whoever sends it.
const sourcesEach = 10000

// count counts one packet. Where another thread is at it, it is left out: packets
// do not wait.
func (s *sources) count(a netip.Addr, now int64) {
	if !s.mu.TryLock() {
		return
	}
	defer s.mu.Unlock()
	if now-s.since >= 1e9 {
		s.since, s.done = now, 0
	}
	if s.done++; s.done > sourcesEach {
		return
	}
	least := 0
	for i := range s.list {
		if s.list[i].addr == a {
			s.list[i].packets++
			return
		}
		if s.list[i].packets < s.list[least].packets {
			least = i
		}
	}
	n := s.list[least].packets
	s.list[least] = source{a, n + 1, n}
}

// topSources is how many a status shows.
const topSources = 5

// top gives the sources of most packets, of those of which at least half is surely
// their own.
func (s *sources) top() (list []SourceStatus) {
	s.mu.Lock()
	for _, x := range s.list {
		if own := x.packets - x.before; own > x.before {
			list = append(list, SourceStatus{x.addr, own})
		}
	}
	s.mu.Unlock()
	slices.SortFunc(list, func(a, b SourceStatus) int {
		return cmp.Or(cmp.Compare(b.Packets, a.Packets), a.Source.Compare(b.Source))
	})
	return list[:min(len(list), topSources)]
}
