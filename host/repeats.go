package host

import (
	"net/netip"
	"sync"

	"github.com/ipfw/ipfw/engine"
)

// repeats are what has had an event of late: who sends what is refused sends it again,
// and every repetition would be an event that says the same. It is a table of fixed size;
// what finds its place taken counts as new. It allocates nothing.
type repeats struct {
	mu   sync.Mutex
	list [256]repeat
}

type repeat struct {
	what refusal
	at   int64  // of its event
	more uint64 // since
}

// refusal is what makes two packets the same to who reads events: a peer's, of one
// service, refused for one reason by one policy. The opener's port is left out, for
// another try has another.
type refusal struct {
	src, dst netip.Addr
	spi      uint32
	policy   uint32 // engine.Generation
	port     uint16 // the destination's
	protocol uint8
	reason   engine.Reason
	dir      engine.Direction
}

// repeatEach is how often the same refusal has an event, in nanoseconds.
const repeatEach = int64(60e9)

// tell says whether a packet that was refused has an event, and how many like it had
// none since the last.
func (t *repeats) tell(in *engine.Input, reason engine.Reason, policy uint32) (more uint64, ok bool) {
	switch reason {
	case engine.ReasonNoSA, engine.ReasonClear, engine.ReasonClearError, engine.ReasonWrongSA, engine.ReasonOtherPeer,
		engine.ReasonTranslated, engine.ReasonUnknownSA, engine.ReasonTurnsBack, engine.ReasonMustSeal:
	default:
		return 0, true // each is told: RFC 4303 section 3.4.3 and others
	}
	p := &in.Packet
	x := refusal{src: p.Src, dst: p.Dst, spi: p.SPI, policy: policy, port: p.DstPort, protocol: p.Protocol, reason: reason, dir: in.Dir}
	t.mu.Lock()
	defer t.mu.Unlock()
	at := &t.list[x.slot()%uint32(len(t.list))]
	if at.what == x && at.at != 0 && in.Now-at.at < repeatEach {
		at.more++
		return 0, false
	}
	if at.what == x {
		more = at.more
	}
	*at = repeat{what: x, at: max(in.Now, 1)}
	return more, true
}

// slot is where a refusal is kept. Who knows how can take the place of others, which
// then have the events that they would have had without.
func (x *refusal) slot() uint32 {
	h := uint32(2166136261) // FNV-1a
	for _, a := range [...]netip.Addr{x.src, x.dst} {
		for _, b := range a.As16() {
			h = (h ^ uint32(b)) * 16777619
		}
	}
	for _, n := range [...]uint32{x.spi, uint32(x.port), uint32(x.protocol), uint32(x.reason), uint32(x.dir)} {
		h = (h ^ n) * 16777619
		h ^= h >> 15
	}
	return h
}
