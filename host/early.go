package host

import (
	"bytes"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
)

// How many sealed packets may wait for the answer that brings their keys, in
// packets and bytes, for one SPI and in all, and how long. A packet more, or one
// that has waited longer, is lost, as it would be on a bad line.
const (
	earlyPackets    = 32
	earlyBytes      = 64 << 10
	earlyAllPackets = 2048
	earlyAllBytes   = 4 << 20
	earlyTime       = int64(3 * time.Second) // an answer that was lost comes again within
	// earlyTail is how much longer an SPI counts as expected when its SA is
	// there: a worker may have looked for it a moment before.
	earlyTail = int64(time.Second)
)

// early keeps sealed packets that have overtaken the answer of their sender: who
// answers IKE_AUTH or CREATE_CHILD_SA may send by the new SA at once (RFC 7296
// section 1.2), and the initiator learns the keys from that answer only. Such
// packets wait by SPIs that this host has proposed and nobody has answered yet,
// and by no others: IKE tells them to the peer encrypted, so that whoever else
// sends by one has guessed it.
//
//	arriving --unknown SPI--> add --is it expected?--> discarded
//	                           |
//	Install --> take --> opened, judged, handed to the kernel
type early struct {
	n atomic.Int32 // SPIs expected: while there are none, nothing is locked

	mu      sync.Mutex
	lines   map[uint32]*earlyLine
	packets int
	bytes   int

	opened atomic.Uint64
	lost   atomic.Uint64 // waited for too long, found no room, or were not good
}

type earlyLine struct {
	packets []earlyPacket
	bytes   int
	end     int64 // when the line is closed; 0: not while its SA is missing
}

// earlyPacket is a copy of a packet that waits: a whole datagram, or what Unseal
// was given.
type earlyPacket struct {
	in     engine.Input // its Packet.Bytes is a copy as well
	sealed []byte       // nil: in.Packet.Bytes is the datagram
	until  int64
}

func (p *earlyPacket) size() int { return len(p.in.Packet.Bytes) + len(p.sealed) }

func newEarly() *early { return &early{lines: map[uint32]*earlyLine{}} }

// expect lets packets with an SPI wait.
func (e *early) expect(spi uint32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.lines[spi] == nil {
		e.lines[spi] = &earlyLine{}
		e.n.Store(int32(len(e.lines)))
	}
}

// take gives what waits for an SPI whose SA is there now.
func (e *early) take(spi uint32, now int64) []earlyPacket {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.lines[spi]
	if l == nil {
		return nil
	}
	l.end = now + earlyTail
	return e.empty(l)
}

// forget throws away what waits for an SPI, which is expected no more.
func (e *early) forget(spi uint32) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if l := e.lines[spi]; l != nil {
		e.lost.Add(uint64(len(e.empty(l))))
		e.close(spi)
	}
}

// empty takes all packets out of a line; e.mu is held.
func (e *early) empty(l *earlyLine) []earlyPacket {
	list := l.packets
	e.packets -= len(list)
	e.bytes -= l.bytes
	l.packets, l.bytes = nil, 0
	return list
}

func (e *early) close(spi uint32) {
	delete(e.lines, spi)
	e.n.Store(int32(len(e.lines)))
}

// add is engine.Options.Early.
func (e *early) add(in *engine.Input, sealed []byte) bool {
	if e.n.Load() == 0 {
		return false
	}
	p := &in.Packet
	var spi uint32
	switch {
	case len(sealed) >= 4:
		spi = binary.BigEndian.Uint32(sealed)
	case p.HasSPI:
		spi = p.SPI
	case p.Protocol == packet.UDP && p.Len >= p.Payload+4 && len(p.Bytes) >= p.Len:
		spi = binary.BigEndian.Uint32(p.Bytes[p.Payload:])
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.lines[spi]
	if l == nil {
		return false
	}
	kept := earlyPacket{in: *in, sealed: sealed, until: in.Now + earlyTime}
	if size := kept.size(); len(l.packets) >= earlyPackets || l.bytes+size > earlyBytes ||
		e.packets >= earlyAllPackets || e.bytes+size > earlyAllBytes {
		e.lost.Add(1)
		return false
	}
	kept.in.Packet.Bytes, kept.sealed = bytes.Clone(p.Bytes), bytes.Clone(sealed)
	l.packets = append(l.packets, kept)
	l.bytes += kept.size()
	e.packets++
	e.bytes += kept.size()
	return true
}

// expire throws away what has waited for too long, and gives what came at the
// very moment in which its SA was made.
func (e *early) expire(now int64) (list []earlyPacket) {
	if e.n.Load() == 0 {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for spi, l := range e.lines {
		if l.end != 0 {
			list = append(list, e.empty(l)...)
			if l.end <= now {
				e.close(spi)
			}
			continue
		}
		k, size := 0, 0
		for k < len(l.packets) && l.packets[k].until <= now {
			size += l.packets[k].size()
			k++
		}
		l.packets = l.packets[k:]
		l.bytes -= size
		e.packets -= k
		e.bytes -= size
		e.lost.Add(uint64(k))
	}
	return list
}

// open opens, judges and hands to the kernel what has come before its SA, as if
// it came now.
func (x *exchange) open(list []earlyPacket) {
	var out engine.Output
	var u engine.Unsealed
	for i := range list {
		p := &list[i]
		held, all := x.openOne(p, &out, &u)
		for _, clear := range all {
			if x.d.firewall.Deliver(clear) != nil {
				all = nil
				break
			}
		}
		if all == nil && !held {
			x.early.lost.Add(1)
			continue
		}
		x.early.opened.Add(1)
	}
}

// openOne gives what is to be delivered: the clear packet, or the datagram that
// it completes; nothing if it may not pass, which is counted, or, held, if it is
// a fragment that waits for others.
func (x *exchange) openOne(p *earlyPacket, out *engine.Output, u *engine.Unsealed) (held bool, clear [][]byte) {
	in := &p.in
	in.Now, in.Again = x.d.now(), true
	var r engine.Result
	if p.sealed == nil {
		r = x.d.engine.Process(in, out)
	} else if r = x.d.engine.Unseal(in, p.sealed, u); r.Verdict == engine.Protect {
		r = x.d.engine.Process(&u.Input, out)
	}
	switch {
	case r.Verdict != engine.Protect:
		return r.Reason == engine.ReasonFragmentHeld, nil
	case out.Pieces != nil:
		return false, out.Pieces
	case out.Replace != nil:
		return false, [][]byte{out.Replace}
	}
	return false, [][]byte{u.Whole()}
}
