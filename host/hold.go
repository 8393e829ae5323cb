package host

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
)

// How many packets may wait for an SA, in packets and bytes, for one peer and in
// all, and how long. A packet more, or one that has waited longer, is lost, as it
// would be on a bad line.
const (
	holdPackets    = 16
	holdBytes      = 64 << 10
	holdAllPackets = 4096
	holdAllBytes   = 4 << 20
	holdTime       = int64(10 * time.Second)
)

// need is what SA a packet waits for: one of an ipsec block, with a peer.
type need struct {
	block  string
	remote netip.Addr // whom to call
}

// heldPacket is a copy of a packet that waits, and what the kernel said of it.
type heldPacket struct {
	in    engine.Input // but for its Packet
	bytes []byte
	until int64
}

// line is where packets wait for one SA.
type line struct {
	packets []heldPacket
	bytes   int
	asked   int64 // when the key exchange was last asked to make the SA
}

// hold keeps packets that wait for SAs.
type hold struct {
	mu      sync.Mutex
	lines   map[need]*line
	packets int
	bytes   int

	released atomic.Uint64
	lost     atomic.Uint64 // waited for too long, or found no room
}

func newHold() *hold { return &hold{lines: map[need]*line{}} }

// maxLines bounds how many peers may be waited for.
const maxLines = 4096

// askAgain is how long it takes before the key exchange is asked once more for
// what it has not brought. It makes one attempt in that time, whatever comes.
const askAgain = int64(3 * time.Second)

// add keeps a copy of a packet. ask says that the key exchange should be asked
// for the SA; ok, that there was room.
func (h *hold) add(n need, in *engine.Input) (ask, ok bool) {
	b := in.Packet.Bytes[:in.Packet.Len]
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.lines[n]
	if l == nil {
		if len(h.lines) >= maxLines {
			h.lost.Add(1)
			return false, false
		}
		l = &line{}
		h.lines[n] = l
	}
	if l.asked == 0 || in.Now-l.asked >= askAgain {
		l.asked, ask = max(1, in.Now), true
	}
	if len(l.packets) >= holdPackets || l.bytes+len(b) > holdBytes || h.packets >= holdAllPackets || h.bytes+len(b) > holdAllBytes {
		h.lost.Add(1)
		return ask, false
	}
	kept := heldPacket{in: *in, bytes: append([]byte(nil), b...), until: in.Now + holdTime}
	kept.in.Packet = packet.Packet{} // it points into the receiver's buffer
	l.packets = append(l.packets, kept)
	l.bytes += len(b)
	h.packets++
	h.bytes += len(b)
	return ask, true
}

// take takes out the packets that wait for SAs of an ipsec block, of those peers
// for whose first packet ready says that there is one now.
func (h *hold) take(block string, ready func(*heldPacket) bool) (list []heldPacket) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for n, l := range h.lines {
		if n.block == block && len(l.packets) > 0 && ready(&l.packets[0]) {
			list = append(list, l.packets...)
			h.forget(n, l)
		}
	}
	return list
}

func (h *hold) forget(n need, l *line) {
	h.packets -= len(l.packets)
	h.bytes -= l.bytes
	delete(h.lines, n)
}

// expire throws away what has waited for too long.
func (h *hold) expire(now int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for n, l := range h.lines {
		k := 0
		for k < len(l.packets) && l.packets[k].until <= now {
			l.bytes -= len(l.packets[k].bytes)
			h.bytes -= len(l.packets[k].bytes)
			k++
		}
		l.packets = l.packets[k:]
		h.packets -= k
		h.lost.Add(uint64(k))
		if len(l.packets) == 0 && now-l.asked >= askAgain {
			delete(h.lines, n)
		}
	}
}

// waiting is how many packets wait now.
func (h *hold) waiting() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.packets
}
