package nfq

import (
	"context"
	"encoding/binary"
	"log/slog"
	"sync"
	"time"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
	"golang.org/x/sys/unix"
)

// This file makes the kernel discard the rest of a flow that had been let
// through and that a new policy cuts. A packet that is dropped comes to no
// chain that could write on its connection, so the daemon does it:
//
//	packet --> verdict drop, and Result.Offload --> wanted --> ctnetlink: refused, generation
//	the rest --> connection has refused and the table's generation --> drop
//
// It is done beside the packets' way, and what does not fit is not done: then
// the flow's next packet comes up, is discarded like this one, and asks again.

// refusal is a connection that the kernel is to cut.
type refusal struct {
	name       []byte // as connections.mark wants it
	family     uint8
	forward    bool
	generation uint32 // of the table that queued the packet
	policy     uint32 // engine.Generation that decided
}

// refusals are those that wait, and what the kernel had counted of each
// connection when it was cut.
type refusals struct {
	wanted chan refusal

	mu  sync.Mutex
	cut []engine.Carried
}

// refusalsWaiting bounds the first, refusalsTold the second. refusalPause is how
// long nobody is asked about after a connection that the kernel does not know.
const (
	refusalsWaiting = 256
	refusalsTold    = 1 << 16
	refusalPause    = 10 * time.Millisecond
)

func newRefusals() *refusals { return &refusals{wanted: make(chan refusal, refusalsWaiting)} }

// refused asks for the connection of a packet that has just been discarded.
func (w *worker) refused(m *message, r *engine.Result) {
	wanted := w.fw.refusals.wanted
	if !w.offloads(r) || len(wanted) == cap(wanted) {
		return
	}
	p := &w.in.Packet
	name, family := nameOf(p)
	select {
	case wanted <- refusal{
		name: name, family: family, forward: m.hook == unix.NF_INET_FORWARD,
		generation: w.fw.marks.generationOf(m.mark), policy: r.Offload,
	}:
	default:
	}
}

// nameOf is how the kernel finds the connection of a packet: by the packet that
// would answer it, because that is what the kernel knows behind destination
// translation. Where the source is still to be translated it finds none, and
// the packets of such a flow go on coming up.
func nameOf(p *packet.Packet) (name []byte, family uint8) {
	src, dst := p.Dst.AsSlice(), p.Src.AsSlice()
	family = unix.AF_INET
	srcType, dstType := uint16(ctIPv4Src), uint16(ctIPv4Dst)
	if p.Version == 6 {
		family, srcType, dstType = unix.AF_INET6, ctIPv6Src, ctIPv6Dst
	}
	ip := appendAttr(appendAttr(nil, srcType, src), dstType, dst)
	proto := appendAttr(nil, ctProtoNum, []byte{p.Protocol})
	proto = appendAttr(proto, ctProtoSrcPort, binary.BigEndian.AppendUint16(nil, p.DstPort))
	proto = appendAttr(proto, ctProtoDstPort, binary.BigEndian.AppendUint16(nil, p.SrcPort))
	tuple := appendAttr(nil, ctTupleIP|nested, ip)
	tuple = appendAttr(tuple, ctTupleProto|nested, proto)
	return appendAttr(nil, ctTupleOrig|nested, tuple), family
}

// appendAttr adds an attribute and what pads it to four bytes.
func appendAttr(b []byte, typ uint16, v []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(sizeofAttr+len(v)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, v...)
	return append(b, make([]byte, -len(v)&3)...)
}

// refuse cuts what is wanted until the context ends.
func (f *Firewall) refuse(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-f.refusals.wanted:
			known, err := f.refuseOne(&r)
			if err != nil {
				f.cfg.Logger.Debug("connection not cut: its packets go on being discarded one by one", slog.Any("error", err))
			}
			if !known { // its next packet asks again: no faster than this
				select {
				case <-ctx.Done():
				case <-time.After(refusalPause):
				}
			}
		}
	}
}

// refuseOne marks one connection, unless there is another policy by now, and
// remembers what the kernel had counted of it until then. It says whether the
// kernel knows the connection.
//
// A packet does not say in which zone of connection tracking its connection is
// (the kernel's queue could, with NFQA_CT, which not every kernel has), so only
// that of the default zone is found. One that this very policy lets pass is not
// the packet's, which would not have come up: it has the same addresses and ports
// in another zone, or by another interface, and is left alone.
func (f *Firewall) refuseOne(r *refusal) (known bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.offload.Load() != r.policy || f.generation != r.generation {
		return true, nil
	}
	other := false
	err = f.connections.find(r.name, r.family, func(c *connection) { other = f.marks.passes(c.mark, r.generation) })
	if err != nil || other {
		return false, err
	}
	err = f.connections.mark(r.name, r.family, f.marks.denied(r.generation, r.forward), f.marks.decided())
	if err != nil {
		return false, err
	}
	err = f.connections.find(r.name, r.family, func(c *connection) {
		known = true
		f.refusals.mu.Lock()
		defer f.refusals.mu.Unlock()
		if len(f.refusals.cut) < refusalsTold {
			f.refusals.cut = append(f.refusals.cut, c.carried(r.forward))
		}
	})
	return known, err
}

// tell gives what the kernel had counted of the connections cut since the last
// call.
func (r *refusals) tell(yield func(*engine.Carried)) {
	r.mu.Lock()
	cut := r.cut
	r.cut = nil
	r.mu.Unlock()
	for i := range cut {
		yield(&cut[i])
	}
}

// find gives one connection. None is no error.
func (c *connections) find(name []byte, family uint8, yield func(*connection)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.get(name, family, yield)
}
