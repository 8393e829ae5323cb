package engine

import (
	"hash/maphash"
	"sync/atomic"
	"time"

	"github.com/ipfw/ipfw/packet"
)

// told remembers which senders have heard how long their packets may be. One
// that has, and of which packets still come that are longer, has cut them up
// itself, and the kernel has put them together again before this host saw
// them: they may be cut up once more. Ends that share a place are taken for
// one another, which costs a few fragments.
type told struct {
	seed maphash.Seed
	when [1024]atomic.Int64 // 0: never
}

// toldLife is how long senders remember (RFC 8201 section 4: 10 minutes).
const toldLife = int64(10 * time.Minute)

func (t *told) at(p *packet.Packet) *atomic.Int64 {
	h := maphash.Comparable(t.seed, p.Src) ^ 3*maphash.Comparable(t.seed, p.Dst)
	return &t.when[h%uint64(len(t.when))]
}

// tell notes that the sender is being told.
func (t *told) tell(p *packet.Packet, now int64) { t.at(p).Store(max(now, 1)) }

// lately says whether it was told.
func (t *told) lately(p *packet.Packet, now int64) bool {
	at := t.at(p).Load()
	return at != 0 && now-at < toldLife
}
