package engine

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// flowShards is a power of two well above the number of cores.
const flowShards = 64

const defaultMaxFlows = 1 << 18

// flowTable holds the flows, in shards so that cores do not wait for each other.
type flowTable struct {
	seed   maphash.Seed
	shards [flowShards]flowShard
}

// flowShard is a part of the table with its own lock and its own bound.
// Flows are linked in order of last use, the oldest first.
type flowShard struct {
	sync.Mutex
	flows          map[flowKey]*flow
	oldest, newest *flow
	max            int
	crowd          crowd
	count          atomic.Int64 // len(flows), readable without the lock
}

func (t *flowTable) init(most int) {
	if most <= 0 {
		most = defaultMaxFlows
	}
	t.seed = maphash.MakeSeed()
	for i := range t.shards {
		t.shards[i].flows = make(map[flowKey]*flow)
		t.shards[i].max = max(1, most/flowShards)
	}
}

func (t *flowTable) shard(k *flowKey) *flowShard {
	return &t.shards[maphash.Comparable(t.seed, *k)%flowShards]
}

// len is the number of flows, those that have just expired included.
func (t *flowTable) len() int {
	n := int64(0)
	for i := range t.shards {
		n += t.shards[i].count.Load()
	}
	return int(n)
}

// expire forgets flows whose time is over.
func (t *flowTable) expire(now int64) {
	for i := range t.shards {
		s := &t.shards[i]
		s.Lock()
		for _, f := range s.flows {
			if f.expires <= now {
				s.remove(f)
			}
		}
		s.Unlock()
	}
}

// get finds a live flow and marks it as used last. The caller holds the lock,
// here and below.
func (s *flowShard) get(k *flowKey, now int64) *flow {
	f := s.flows[*k]
	if f == nil {
		return nil
	}
	if f.expires <= now {
		s.remove(f)
		return nil
	}
	if s.newest != f {
		s.unlink(f)
		s.link(f)
	}
	return f
}

// insert remembers a flow. In a full shard it takes the place of one that has
// expired, that never got an answer, or that the kernel answers for; flows that
// carry traffic both ways are not given up for new ones (a flood must not cut
// sessions), but of networks that have far more of them than others, so it may fail.
func (s *flowShard) insert(f *flow, now int64) bool {
	if len(s.flows) >= s.max && !s.evict(now) && !s.makeRoom(f, now) {
		return false
	}
	s.flows[f.key] = f
	s.link(f)
	s.count.Store(int64(len(s.flows)))
	return true
}

// evictionScan bounds the search for a flow to give up.
const evictionScan = 32

func (s *flowShard) evict(now int64) bool {
	f := s.oldest
	for i := 0; f != nil && i < evictionScan; i++ {
		if f.spare(now) {
			s.remove(f)
			return true
		}
		f = f.newer
	}
	return false
}

func (s *flowShard) remove(f *flow) {
	delete(s.flows, f.key)
	s.unlink(f)
	s.count.Store(int64(len(s.flows)))
}

func (s *flowShard) link(f *flow) {
	f.older, f.newer = s.newest, nil
	if s.newest != nil {
		s.newest.newer = f
	} else {
		s.oldest = f
	}
	s.newest = f
}

func (s *flowShard) unlink(f *flow) {
	if f.older != nil {
		f.older.newer = f.newer
	} else {
		s.oldest = f.newer
	}
	if f.newer != nil {
		f.newer.older = f.older
	} else {
		s.newest = f.older
	}
	f.older, f.newer = nil, nil
}
