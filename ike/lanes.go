package ike

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
)

// lanes are where datagrams wait for the Core. Whoever is in the middle of
// something does not stand behind a flood of those who begin: a lane that is
// full loses its own kind only, and each has its turn.
//
//	rest    everything of IKE SAs that are up or half-open
//	cookie  IKE_SA_INIT that brings back a cookie, or pretends to
//	call    IKE_SA_INIT without one: what a flood from forged addresses is
//	        made of, and what costs an honest caller no more than a second
//	suspect what next finds in the others of handshakes that a Core suspects:
//	        public-key work that is likely to be for nothing
type lanes struct {
	queues [4]chan Datagram
	bytes  [4]atomic.Int64 // of what waits
	lost   [4]atomic.Uint64
	ready  chan struct{} // something has been added
	turn   int

	mu   sync.Mutex
	ofSA map[spiPair]share // of laneRest
}

// spiPair are the SPIs of a message.
type spiPair [16]byte

// share is what waits of one IKE SA.
type share struct{ n, bytes int }

// mostOfSA and mostBytesOfSA bound it: a peer that has authenticated may make the Core work for each
// message, and whoever heeds the window of RFC 7296 section 2.3, which is one each
// way, has no more under way than the fragments of a request and of an answer, and
// those of before. Others would stand behind all that it sends.
const (
	mostOfSA      = 4 * maxFragments
	mostBytesOfSA = 4 * maxMessage
)

const (
	laneRest = iota
	laneCookie
	laneCall
	laneSuspect
)

// laneLengths are how many datagrams may wait in each lane. One more is lost, as
// UDP may lose it: a flood must not fill memory.
var laneLengths = [...]int{laneRest: 8192, laneCookie: 1024, laneCall: 1024, laneSuspect: 1024}

// laneBytes bounds them in bytes as well: one datagram may have 65,507. All
// lanes together are 22 MiB.
var laneBytes = [...]int64{laneRest: 16 << 20, laneCookie: 2 << 20, laneCall: 2 << 20, laneSuspect: 2 << 20}

func newLanes() *lanes {
	l := &lanes{ready: make(chan struct{}, 1), ofSA: map[spiPair]share{}}
	for i := range l.queues {
		l.queues[i] = make(chan Datagram, laneLengths[i])
	}
	return l
}

// laneOf reads what the header and the type of the first payload say. A cookie
// comes before all other payloads (RFC 7296 section 2.6).
func laneOf(b []byte) int {
	switch {
	case len(b) < headerLen || b[18] != exIKESAInit || b[19]&flagResponse != 0 || binary.BigEndian.Uint64(b[8:]) != 0:
		return laneRest
	case b[16] == plNotify:
		return laneCookie
	}
	return laneCall
}

// add may be called by many at once. The first message of a stranger that is
// longer than the Core takes is lost here.
func (l *lanes) add(d Datagram) {
	i := laneOf(d.Data)
	if i != laneRest && len(d.Data) > maxInit {
		l.lost[i].Add(1)
		return
	}
	if i == laneRest && !l.within(d) {
		l.lost[i].Add(1)
		return
	}
	if !l.put(i, d) {
		if i == laneRest {
			l.gone(d)
		}
		return
	}
	select {
	case l.ready <- struct{}{}:
	default:
	}
}

// spisOf are zero for what has no header.
func spisOf(d Datagram) (s spiPair) {
	copy(s[:], d.Data)
	return s
}

// within books a datagram of an IKE SA that has not too many; gone takes it out.
func (l *lanes) within(d Datagram) bool {
	s := spisOf(d)
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.ofSA[s]
	if x.n++; x.n > mostOfSA || x.bytes+len(d.Data) > mostBytesOfSA {
		return false
	}
	x.bytes += len(d.Data)
	l.ofSA[s] = x
	return true
}

func (l *lanes) gone(d Datagram) {
	s := spisOf(d)
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.ofSA[s]
	x.n, x.bytes = x.n-1, x.bytes-len(d.Data)
	if l.ofSA[s] = x; x.n <= 0 {
		delete(l.ofSA, s)
	}
}

// put adds to a lane that is not full.
func (l *lanes) put(i int, d Datagram) bool {
	n := int64(len(d.Data))
	if l.bytes[i].Add(n) <= laneBytes[i] {
		select {
		case l.queues[i] <- d:
			return true
		default:
		}
	}
	l.bytes[i].Add(-n)
	l.lost[i].Add(1)
	return false
}

// laneTurns says which lane goes first, turn by turn: none starves, whatever
// the others are filled with.
var laneTurns = [...]int{laneRest, laneRest, laneCookie, laneRest, laneRest, laneCookie, laneRest, laneCall, laneSuspect}

// next gives the next datagram, false if there is none. One goroutine calls it.
func (l *lanes) next(suspect func(Datagram) bool) (Datagram, bool) {
	l.turn = (l.turn + 1) % len(laneTurns)
	first := laneTurns[l.turn]
	for _, i := range [...]int{first, laneRest, laneCookie, laneCall, laneSuspect} {
		for range cap(l.queues[i]) {
			d, ok := l.take(i)
			if !ok {
				break
			}
			if i == laneSuspect || !suspect(d) {
				return d, true
			}
			l.put(laneSuspect, d)
		}
	}
	return Datagram{}, false
}

func (l *lanes) take(i int) (Datagram, bool) {
	select {
	case d := <-l.queues[i]:
		l.bytes[i].Add(-int64(len(d.Data)))
		if i == laneRest {
			l.gone(d)
		}
		return d, true
	default:
		return Datagram{}, false
	}
}
