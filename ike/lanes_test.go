package ike

import (
	"encoding/binary"
	"testing"
)

// A full lane loses its own kind and no other, and none of the three starves.
func TestLanes(t *testing.T) {
	call := initMessage(t, 1)
	cookie := withCookie(call, append(make([]byte, headerLen), 0, 0, 0, 41, 0, 0, nCookie>>8, nCookie&255))
	answer := append([]byte(nil), call...)
	answer[19] |= flagResponse
	auth := append([]byte(nil), call...)
	auth[18], auth[8] = exIKEAuth, 1
	messages := [][]byte{laneRest: auth, laneCookie: cookie, laneCall: call}
	nobody := func(Datagram) bool { return false }
	for want, b := range messages {
		if got := laneOf(b); got != want {
			t.Errorf("a message of lane %d goes to %d", want, got)
		}
	}
	for _, b := range [][]byte{answer, nil, call[:10]} {
		if got := laneOf(b); got != laneRest {
			t.Errorf("%d bytes that begin nothing go to lane %d", len(b), got)
		}
	}
	for flood, b := range messages {
		l := newLanes()
		for i := range laneLengths[flood] + 5 {
			l.add(Datagram{Data: ofSA(b, i)})
		}
		for _, o := range messages {
			l.add(Datagram{Data: o})
		}
		for i := range messages {
			if want := map[bool]uint64{true: 6}[i == flood]; l.lost[i].Load() != want {
				t.Errorf("a flood of lane %d loses %d of lane %d", flood, l.lost[i].Load(), i)
			}
		}
		<-l.ready
		// All turns once: whatever waits behind the flood has come.
		seen := map[int]bool{}
		for range laneTurns {
			d, ok := l.next(nobody)
			if !ok {
				t.Fatal("nothing waits")
			}
			seen[laneOf(d.Data)] = true
		}
		if len(seen) != len(messages) {
			t.Errorf("a flood of lane %d lets %v through", flood, seen)
		}
		for n := laneLengths[flood] + 2 - len(laneTurns); ; n-- {
			if _, ok := l.next(nobody); !ok {
				if n != 0 {
					t.Errorf("%d datagrams are left of a flood of lane %d", n, flood)
				}
				break
			}
		}
	}
}

// ofSA is a message that does not begin an IKE SA, as one of another; others stay
// as they are.
func ofSA(b []byte, i int) []byte {
	if laneOf(b) != laneRest {
		return b
	}
	b = append([]byte(nil), b...)
	binary.BigEndian.PutUint32(b[12:], uint32(i))
	return b
}

// Who sends more for one IKE SA than its window allows loses the rest of it, and
// whatever comes for others is heard behind no more than that.
func TestLaneShares(t *testing.T) {
	auth := initMessage(t, 1)
	auth[18], auth[8] = exIKEAuth, 1
	for _, size := range []int{len(auth), 60000} {
		l := newLanes()
		for range 20000 {
			l.add(Datagram{Data: append(ofSA(auth, 1), make([]byte, size-len(auth))...)})
		}
		l.add(Datagram{Data: ofSA(auth, 2)})
		for n := 0; ; n++ {
			d, ok := l.next(func(Datagram) bool { return false })
			if !ok {
				t.Fatalf("%d bytes each: the other IKE SA is not heard", size)
			}
			if d.Data[15] == 2 {
				if n == 0 || n > 300 {
					t.Errorf("%d bytes each: it stands behind %d others", size, n)
				}
				break
			}
		}
		if len(l.ofSA) != 0 {
			t.Errorf("%d shares are booked of nothing", len(l.ofSA))
		}
	}
}

// Datagrams of suspects wait behind all others, have their turn, and are lost when
// they are too many.
func TestSuspectLane(t *testing.T) {
	auth := initMessage(t, 1)
	auth[18], auth[8] = exIKEAuth, 1
	l := newLanes()
	honest := append([]byte(nil), auth...)
	honest[0] ^= 1
	suspect := func(d Datagram) bool { return d.Data[0] == auth[0] }
	const flood = 3000
	for i := range flood {
		l.add(Datagram{Data: ofSA(auth, i)})
	}
	for range 100 {
		l.add(Datagram{Data: honest})
	}
	early, late := 0, 0
	for n := 0; ; n++ {
		d, ok := l.next(suspect)
		switch {
		case !ok:
			if want := 100 + laneLengths[laneSuspect]; n < want || early == 0 || late == 0 || l.lost[laneSuspect].Load() != uint64(flood+100-n) {
				t.Errorf("%d came of %d at least, %d lost; suspects %d before and %d after the honest", n, want, l.lost[laneSuspect].Load(), early, late)
			}
			return
		case suspect(d) && n < 120:
			early++
		case suspect(d):
			late++
		case n > 120:
			t.Fatalf("an honest one is the %d.", n)
		}
	}
}

// What waits is bounded in bytes as well, in each lane by itself, and what has
// been taken leaves room. Nobody begins with a message of 64 KiB.
func TestLaneBytes(t *testing.T) {
	call := initMessage(t, 1)
	auth := append([]byte(nil), call...)
	auth[18], auth[8] = exIKEAuth, 1
	l := newLanes()
	long := append(auth, make([]byte, 65507-len(auth))...)
	for i := range laneLengths[laneRest] {
		l.add(Datagram{Data: ofSA(long, i)})
	}
	if n := len(l.queues[laneRest]) * len(long); n > 16<<20 || n < 15<<20 || l.lost[laneRest].Load() == 0 {
		t.Errorf("%d bytes wait, %d are lost", n, l.lost[laneRest].Load())
	}
	l.add(Datagram{Data: call})
	if len(l.queues[laneCall]) != 1 {
		t.Error("a full lane takes the room of another")
	}
	l.add(Datagram{Data: append(call, make([]byte, 60000)...)})
	if len(l.queues[laneCall]) != 1 || l.lost[laneCall].Load() != 1 {
		t.Error("a first message of 60,000 bytes waits")
	}
	full := len(l.queues[laneRest])
	for n := full + 1; ; n-- {
		if _, ok := l.next(func(Datagram) bool { return n%2 == 0 }); !ok {
			break
		}
	}
	for i := range l.bytes {
		if n := l.bytes[i].Load(); n != 0 {
			t.Errorf("lane %d is empty and counts %d bytes", i, n)
		}
	}
	for i := range full {
		l.add(Datagram{Data: ofSA(long, i)})
	}
	if len(l.queues[laneRest]) != full {
		t.Errorf("%d of %d find room again", len(l.queues[laneRest]), full)
	}
}
