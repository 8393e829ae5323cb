package nfq

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	nfqueue "github.com/florianl/go-nfqueue/v2"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// callbackReceiver reads a queue by go-nfqueue's own loop.
type callbackReceiver struct {
	queue uint16
	nf    *nfqueue.Nfqueue
	stop  context.CancelFunc // ends go-nfqueue's loop
	ended chan struct{}      // closed when it has ended by an error
	err   error              // ... which is this one
	lost  atomic.Uint64

	work chan callbackWork // a receive call hands its worker to the loop
	mu   sync.Mutex        // held while a packet is judged
}

type callbackWork struct {
	ctx context.Context
	w   *worker
}

// takeoverTries is how often go-nfqueue may try to open a queue: it takes the
// first packet of a queue that already gets some for the kernel's answer to
// its configuration, and gives up.
const takeoverTries = 20

func openCallback(c queueConfig) (receiver, error) {
	var err error
	for range takeoverTries {
		var r *callbackReceiver
		if r, err = tryCallback(c); err == nil {
			return r, nil
		}
		var errno unix.Errno
		if errors.As(err, &errno) {
			return nil, err // the kernel's own word
		}
	}
	return nil, err
}

func tryCallback(c queueConfig) (*callbackReceiver, error) {
	nf, err := nfqueue.Open(&nfqueue.Config{
		NfQueue:      c.queue,
		MaxQueueLen:  uint32(c.length),
		MaxPacketLen: uint32(c.copyRange),
		Copymode:     nfqueue.NfQnlCopyPacket,
		Flags:        uint32(c.flags()),
		AfFamily:     unix.AF_UNSPEC,
	})
	if err != nil {
		return nil, err
	}
	r := &callbackReceiver{queue: c.queue, nf: nf, ended: make(chan struct{}), work: make(chan callbackWork)}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	if err = tune(nf.Con, c.readBuffer); err == nil {
		err = nf.RegisterWithErrorFunc(ctx, r.callback(ctx), r.failed(ctx))
	}
	if err != nil {
		stop()
		return nil, errors.Join(err, nf.Con.Close())
	}
	return r, nil
}

// callback judges one packet, with the worker of the receive call that is
// running; while none is, the packet waits, and all behind it.
func (r *callbackReceiver) callback(ctx context.Context) nfqueue.HookFunc {
	var now callbackWork
	return func(a nfqueue.Attribute) int {
		r.mu.Lock()
		defer r.mu.Unlock()
		for now.ctx == nil || now.ctx.Err() != nil {
			r.mu.Unlock()
			select {
			case now = <-r.work:
				r.mu.Lock()
			case <-ctx.Done():
				r.mu.Lock()
				return 1
			}
		}
		if a.PacketID == nil {
			return 0
		}
		m := message{id: *a.PacketID, hasID: true, mark: value(a.Mark), inDev: value(a.InDev), outDev: value(a.OutDev), hook: value(a.Hook)}
		if a.Payload != nil {
			m.payload = *a.Payload
		}
		if a.SkbInfo != nil && len(*a.SkbInfo) == 4 {
			m.info = binary.BigEndian.Uint32(*a.SkbInfo)
		}
		m.wireLen = max(len(m.payload), int(value(a.CapLen)))
		now.w.stats.Lock()
		ans := now.w.judge(&m, now.w.fw.Now())
		now.w.stats.Unlock()
		now.w.send.flush()
		if err := r.verdict(m.id, ans, now.w.out.Replace); err != nil {
			now.w.stats.sendErrors.Add(1)
			now.w.fw.cfg.Logger.Error("verdict not sent", slog.Any("error", err))
		}
		return 0
	}
}

func (r *callbackReceiver) verdict(id uint32, a answer, payload []byte) error {
	switch {
	case !a.accept:
		return r.nf.SetVerdict(id, nfqueue.NfDrop)
	case a.replace && a.setMark:
		return r.nf.SetVerdictWithOption(id, nfqueue.NfAccept, nfqueue.WithMark(a.mark), nfqueue.WithAlteredPacket(payload))
	case a.replace:
		return r.nf.SetVerdictWithOption(id, nfqueue.NfAccept, nfqueue.WithAlteredPacket(payload))
	case a.setMark:
		return r.nf.SetVerdictWithOption(id, nfqueue.NfAccept, nfqueue.WithMark(a.mark))
	}
	return r.nf.SetVerdict(id, nfqueue.NfAccept)
}

// failed decides whether the loop goes on after an error.
func (r *callbackReceiver) failed(ctx context.Context) nfqueue.ErrorFunc {
	return func(err error) int {
		var op *netlink.OpError
		switch {
		case ctx.Err() != nil:
			return 1
		case errors.Is(err, unix.ENOBUFS):
			r.lost.Add(1)
			return 0
		case errors.As(err, &op) && (op.Timeout() || op.Temporary()):
			return 0
		}
		r.err = fmt.Errorf("queue %d: %w", r.queue, err)
		close(r.ended)
		return 1
	}
}

func (r *callbackReceiver) receive(ctx context.Context, w *worker) error {
	select {
	case r.work <- callbackWork{ctx, w}:
	case <-ctx.Done():
		return nil
	case <-r.ended:
		return r.err
	}
	select {
	case <-ctx.Done():
		r.mu.Lock() // the last packet is done with
		defer r.mu.Unlock()
		return nil
	case <-r.ended:
		return r.err
	}
}

func (r *callbackReceiver) setCopyRange(n int) error { return sendCopyRange(r.nf.Con, r.queue, n) }

func (r *callbackReceiver) overruns() uint64 { return r.lost.Load() }

func (r *callbackReceiver) close() error {
	r.stop()
	return r.nf.Close()
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
