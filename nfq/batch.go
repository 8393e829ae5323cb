package nfq

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// batchReceiver reads a queue with recvmmsg into a fixed ring of buffers, in
// which packets are parsed and judged in place, and answers all of them with
// one send. It allocates nothing for a packet.
//
// A run of equal answers goes as one NFQNL_MSG_VERDICT_BATCH. That answers
// every packet of the queue up to the one it names, and is only right while
// every packet before has had its own answer: the kernel hands packets over in
// the order of their numbers, so it has, unless a message could not be read or
// answers could not be sent. From then on each packet gets its own.
type batchReceiver struct {
	queue uint16
	sock  *queueSocket
	early [][]byte // bodies of packets that came before receive was called
	lost  atomic.Uint64
	ended sync.Mutex // held while receive runs

	ring    []mmsghdr
	iov     []unix.Iovec
	slots   []byte
	out     []byte
	single  bool // no more batch verdicts
	changed bool // out holds packets that go on as something else
	pending run  // answers not yet in out
}

// run is a number of packets in a row with the same answer.
type run struct {
	answer
	last uint32
	n    int
}

const (
	ringSlots = 64
	// slotSize holds any message: the longest payload and 1 KiB of other
	// attributes. Pages that no message reaches are never in memory.
	slotSize = 1<<16 + 1<<10
	// sendTries is how often a send is tried that the kernel has no memory for.
	sendTries = 3
)

func openBatch(c queueConfig) (receiver, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	r := &batchReceiver{queue: c.queue}
	if err := r.open(c, conn); err != nil {
		return nil, errors.Join(err, conn.Close(), r.unmap())
	}
	if r.sock, err = takeSocket(conn, c.awake); err != nil {
		return nil, errors.Join(err, r.unmap())
	}
	return r, nil
}

func (r *batchReceiver) open(c queueConfig, conn *netlink.Conn) error {
	if err := tune(conn, c.readBuffer); err != nil {
		return err
	}
	r.ring = make([]mmsghdr, ringSlots)
	r.iov = make([]unix.Iovec, ringSlots)
	// Outside Go's heap, whose size would make it grow in step with memory
	// that is hardly ever touched.
	var err error
	r.slots, err = unix.Mmap(-1, 0, ringSlots*slotSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	r.out = make([]byte, 0, ringSlots*64)
	for i := range r.ring {
		r.iov[i].Base = &r.slots[i*slotSize]
		r.iov[i].SetLen(slotSize)
		r.ring[i].hdr.Iov = &r.iov[i]
		r.ring[i].hdr.SetIovlen(1)
	}
	return r.bind(c, conn)
}

// answerTimeout bounds the wait for the kernel's answer, which it gives at once.
const answerTimeout = 5 * time.Second

// bind takes the queue and sets it up in one message, so that no packet comes
// up in between. On a queue that packets wait for, some may overtake the
// kernel's answer: they are kept for receive.
func (r *batchReceiver) bind(c queueConfig, conn *netlink.Conn) error {
	req, err := conn.Send(netlink.Message{
		Header: netlink.Header{Type: msgConfig, Flags: netlink.Request | netlink.Acknowledge},
		Data: appendConfig(nil, c.queue,
			netlink.Attribute{Type: cfgCmd, Data: []byte{cmdBind, 0, 0, unix.AF_UNSPEC}},
			copyParams(c.copyRange),
			netlink.Attribute{Type: cfgQueueMaxLen, Data: big32(c.length)},
			netlink.Attribute{Type: cfgMask, Data: big32(flagGSO)},
			netlink.Attribute{Type: cfgFlags, Data: big32(c.flags())}),
	})
	if err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	for {
		msgs, err := conn.Receive()
		if err != nil {
			return err
		}
		answered := false
		for _, m := range msgs {
			switch {
			case m.Header.Type == msgPacket:
				r.early = append(r.early, m.Data)
			case m.Header.Type == netlink.Error && m.Header.Sequence == req.Header.Sequence:
				answered = true
			}
		}
		if answered {
			return nil
		}
	}
}

func (r *batchReceiver) receive(ctx context.Context, w *worker) error {
	r.ended.Lock()
	defer r.ended.Unlock()
	defer context.AfterFunc(ctx, r.sock.stop)()

	r.judgeEarly(w)
	for !r.sock.stopped() {
		n, err := r.sock.receive(r.ring)
		switch err {
		case 0:
			r.judgeAll(w, n)
			r.flush(w)
			w.send.flushFull()
		case unix.EAGAIN:
			w.send.flush()
			r.sock.wait()
		case unix.EINTR:
		case unix.ENOBUFS:
			r.lost.Add(1)
		default:
			w.send.flush()
			return fmt.Errorf("queue %d: %w", r.queue, os.NewSyscallError("recvmmsg", err))
		}
	}
	w.send.flush()
	r.sock.resume()
	return nil
}

// judgeEarly judges what has overtaken the kernel's answer to bind.
func (r *batchReceiver) judgeEarly(w *worker) {
	w.stats.Lock()
	defer w.stats.Unlock()
	now := w.fw.Now()
	for _, body := range r.early {
		r.take(w, msgPacket, body, now)
	}
	r.early = nil
	r.finish(w)
}

// judgeAll judges the first n messages in the ring.
func (r *batchReceiver) judgeAll(w *worker, n int) {
	w.stats.Lock()
	defer w.stats.Unlock()
	now := w.fw.Now()
	for i := range n {
		b := r.slots[i*slotSize:][:min(r.ring[i].len, slotSize)]
		for len(b) > 0 {
			typ, body, rest, ok := splitMessage(b)
			if !ok {
				r.single = true // a packet that never gets an answer
				w.stats.unreadable.Add(1)
				break
			}
			r.take(w, typ, body, now)
			b = rest
		}
	}
}

// take judges one message.
func (r *batchReceiver) take(w *worker, typ uint16, body []byte, now int64) {
	switch typ {
	case msgPacket:
	case unix.NLMSG_ERROR:
		// ENOENT is a verdict for a packet that is gone, as when its chain was.
		if len(body) < 4 || syscall.Errno(-int32(binary.NativeEndian.Uint32(body))) != unix.ENOENT {
			r.single = true
			w.stats.sendErrors.Add(1)
		}
		return
	default:
		return
	}
	var a answer
	m := &w.message
	switch {
	case m.parse(body):
		a = w.judge(m, now)
	case m.hasID:
		w.stats.unreadable.Add(1) // and dropped
	default:
		w.stats.unreadable.Add(1)
		r.single = true
		return
	}
	// What was sealed before leaves before, by a verdict or by the sender: a
	// far end takes a packet that comes late for an old one, and drops it (RFC
	// 4303 section 3.4.3).
	if a.replace {
		w.send.flush()
		r.replace(w, m.id, a)
		return
	}
	r.add(m.id, a)
	if r.changed && w.send.k > 0 {
		r.flush(w)
	}
	if w.send.used >= sendBytes {
		w.send.flushFull()
	}
}

// maxOut is how many bytes of answers are gathered before they are sent: what
// a socket's send buffer surely holds (net.core.wmem_default).
const maxOut = 96 << 10

// replace puts the answer with a new packet behind the others. It is written
// at once: the worker's output is good until the next packet only.
func (r *batchReceiver) replace(w *worker, id uint32, a answer) {
	if r.pending.n > 0 {
		r.settle()
	}
	if len(r.out) > maxOut {
		r.flush(w)
	}
	r.out = appendReplacement(r.out, msgVerdict, r.queue, id, a, w.out.Replace)
	r.changed = true
}

// add puts an answer behind the others.
func (r *batchReceiver) add(id uint32, a answer) {
	if r.pending.n > 0 && (r.single || r.pending.answer != a) {
		r.settle()
	}
	r.pending = run{a, id, r.pending.n + 1}
}

// settle writes the pending run as one message.
func (r *batchReceiver) settle() {
	typ := uint16(msgVerdict)
	if r.pending.n > 1 {
		typ = msgVerdictBatch
	}
	r.out = appendVerdict(r.out, typ, r.queue, r.pending.last, r.pending.answer)
	r.pending.n = 0
}

// finish sends all that is left of a batch.
func (r *batchReceiver) finish(w *worker) {
	r.flush(w)
	w.send.flush()
}

// flush sends all answers. Those that cannot be sent leave their packets in
// the queue, never let through by a later batch.
func (r *batchReceiver) flush(w *worker) {
	if r.pending.n > 0 {
		r.settle()
	}
	if len(r.out) == 0 {
		return
	}
	r.changed = false
	var err error
	for range sendTries {
		if err = r.sock.send(r.out); err == nil {
			r.out = r.out[:0]
			return
		}
	}
	r.single = true
	w.stats.sendErrors.Add(1)
	w.fw.cfg.Logger.Error("verdicts not sent", slog.Int("queue", int(r.queue)), slog.Any("error", err))
	r.out = r.out[:0]
}

func (r *batchReceiver) setCopyRange(n int) error {
	return r.sock.send(appendMessage(nil, msgConfig, appendConfig(nil, r.queue, copyParams(n))))
}

func (r *batchReceiver) overruns() uint64 { return r.lost.Load() }

func (r *batchReceiver) close() error {
	r.sock.stop()
	r.ended.Lock() // a receive that still runs returns
	defer r.ended.Unlock()
	return errors.Join(r.sock.close(), r.unmap())
}

func (r *batchReceiver) unmap() error {
	if r.slots == nil {
		return nil
	}
	slots := r.slots
	r.slots = nil
	return os.NewSyscallError("munmap", unix.Munmap(slots))
}
