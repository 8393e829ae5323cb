// Package nfq is the one room of ipfw that knows the kernel: its nftables
// table, its packet queues, and the raw sockets that answers go out by.
//
//	            input, forward, output chain                  *_save chain
//	packet --> lo? injected? -- no --> marks --> queue ... --> marks --> on its way
//	               |yes                            |  ^
//	               +--> accept            message  v  |  verdict
//	                                    receiver --> worker --> Handler
//
// A Firewall stands in the network namespace of the thread that called Open:
// there it opens every socket it will ever need, so that it does not matter on
// which threads its other methods run.
//
// Fail closed is the kernel's doing, not ours: the table queues every packet,
// and a queue that nobody reads drops. A daemon that dies leaves its table,
// and with it the marks of the connections that were let through. Those that
// the kernel answers for go on as its policy said. The next daemon binds the
// queue first and renews the table second, so that there is no gap between
// them, and with a generation of its own, so that it judges every flow again.
//
// The table is guarded: changed or flushed by somebody else, it is renewed at
// once, and said so.
//
// Limits: bridged packets are seen only if br_netfilter hands them to IP;
// fragments in the clear come reassembled by connection tracking. The answer to a
// forwarded packet that was rejected does not pass destination NAT back.
// Other programs that change the connection mark while a packet of the same
// connection passes on another processor may lose their change or ours: marks
// are read and written in two steps.
package nfq

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfw/ipfw/engine"
)

// Firewall is an nftables table and the queues it sends packets to.
type Firewall struct {
	cfg   Config
	marks marks
	start time.Time
	// tookOver says that a predecessor had left its table, inherited what it
	// had let through.
	tookOver  bool
	inherited inherited
	// found are the connections that were there at the start, accepted those
	// that the other side has opened, by local and remote end.
	found   []Connection
	openers map[[2]netip.AddrPort]engine.Opener

	can       abilities
	receivers []receiver
	stats     []*queueStats
	espBy     atomic.Pointer[string] // see Ways.ESP
	links     *linkNames
	addresses *addresses
	inject    *injector
	tunnel    *tunnel
	intake    *intake
	shortcut  *shortcut
	encap     atomic.Bool // sealed datagrams in UDP leave by the UDP socket
	portTaken atomic.Pointer[string]
	rejects   *rateLimit

	procMu sync.Mutex
	proc   *os.File // /proc/net/netfilter/nfnetlink_queue; nil without it

	connections *connections  // nil where the kernel cannot offload
	offload     atomic.Uint32 // engine.Generation that the table stands for; 0: nothing is offloaded
	refusals    *refusals     // flows to be cut

	expectations *expectations

	guard      *guard
	renewed    atomic.Uint64
	notRenewed atomic.Uint64
	changedBy  atomic.Pointer[string]   // who has last changed the table, and how
	flowtables atomic.Pointer[[]string] // of others, in words
	apart      atomic.Pointer[string]   // why nothing can be kept out of them, "": it is; nil: nothing is protected

	mu     sync.Mutex // orders Reload and Close; guards what they change
	rules  *ruleset
	closed bool
	// generation is that of the table in force, or of the last one that had any.
	generation uint32
	swept      bool // no connection has marks of it that an earlier policy has made
}

// Open finds out what the kernel can, takes the queues, and puts the table in
// force. From then on packets wait for Run. An error leaves everything as it
// was: a table of a predecessor stays, and stays shut.
func Open(cfg Config) (*Firewall, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	runtime.LockOSThread() // everything below in one network namespace
	defer runtime.UnlockOSThread()

	f := &Firewall{cfg: cfg, marks: marks(cfg.Mask), start: time.Now(), rejects: newRateLimit(cfg.RejectRate), refusals: newRefusals()}
	if err := f.open(); err != nil {
		return nil, errors.Join(err, f.release())
	}
	return f, nil
}

func (f *Firewall) open() (err error) {
	if f.rules, err = openRuleset(); err != nil {
		return privileged(err)
	}
	if f.can, err = f.rules.detect(); err != nil {
		return err
	}
	f.rules.own = f.can.own && !f.cfg.noOwner
	if f.tookOver, err = f.rules.refuseForeignTable(f.cfg.Table); err != nil {
		return err
	}
	if f.links, err = openLinkNames(); err != nil {
		return err
	}
	f.links.strict.Store(f.cfg.Interfaces)
	if f.addresses, err = openAddresses(); err != nil {
		return err
	}
	readers := new(awake)
	readers.left.Store(int32(f.cfg.Awake))
	sends, own, err := drawCredential()
	if err != nil {
		return err
	}
	if !own {
		f.cfg.Logger.Warn("no group of its own for the daemon's sockets (CAP_SETGID, a user namespace with few groups): a program that can mark packets and was handed a socket by the daemon's user can send past the policy")
	}
	var mark uint32
	if !own {
		mark = f.marks.injected()
	}
	if f.inject, err = openInjector(mark, sends, readers); err != nil {
		return err
	}
	if f.tunnel, err = openTunnel(f.cfg.Table, f.marks, f.inject.raw6 >= 0); err != nil {
		return err
	}
	if f.intake, err = openIntake(readers); err != nil {
		return err
	}
	f.shortcut = openShortcut(f)
	for i := range f.cfg.Numbers() {
		r, err := openReceiver(f.cfg.Receiver, queueConfig{
			queue:      f.cfg.Queue + uint16(i),
			copyRange:  f.cfg.CopyRange,
			length:     f.cfg.QueueLength,
			readBuffer: f.cfg.ReadBuffer,
			awake:      readers,
			whole:      f.cfg.class(i) == queueWhole || f.cfg.class(i) == queueNew,
		})
		if err != nil {
			return err
		}
		f.receivers = append(f.receivers, r)
		f.stats = append(f.stats, new(queueStats))
	}
	// The first queue of all has the kernel load what makes this file.
	if f.proc, err = os.Open(procQueues); err != nil {
		f.cfg.Logger.Warn("the kernel's queue counters cannot be read", "error", err)
	}
	for range f.inject.ports() {
		f.stats = append(f.stats, new(queueStats))
	}
	f.stats = append(f.stats, new(queueStats)) // of the intake
	guard, err := openGuard()
	if err != nil {
		return err
	}
	f.expectations = openExpectations()
	if err = f.openOffload(); err == nil {
		if f.tookOver || f.cfg.Related {
			f.inherit()
		}
		err = f.install(&f.cfg, true)
	}
	if err != nil {
		return errors.Join(err, guard.conn.Close())
	}
	f.keepFound()
	f.guard = guard
	go guard.watch(f.cfg.Table, f.rules.raw.PID(), func() { f.shortcut.undo(); f.lookForFlowtables() }, f.renew)
	return nil
}

// install puts the table in force; fresh says that policy may have changed, so
// that no flow is offloaded any more.
func (f *Firewall) install(cfg *Config, fresh bool) error {
	gen, offload := f.generation, cfg.Offload != 0 && f.connections != nil
	swept := f.swept
	if offload && (fresh || !swept) {
		var err error
		if gen, err = f.nextGeneration(); err != nil {
			f.cfg.Logger.Warn("marks of an earlier policy cannot be taken off: no flow is offloaded", "error", err)
			offload = false
		}
		swept = err == nil
	}
	if cfg.Protect {
		if err := f.tunnel.up(); err != nil {
			return err
		}
		f.tunnel.showBack(f.cfg.Logger)
	}
	bySocket, err := f.takePorts(cfg)
	if err != nil {
		return err
	}
	f.encap.Store(bySocket)
	prog := f.takeIn(cfg)
	spec := &tableSpec{
		name:     f.cfg.Table,
		marks:    f.marks,
		queue:    f.cfg.Queue,
		queues:   f.cfg.Queues,
		failOpen: cfg.FailOpen,
		protect:  cfg.Protect,
		apart:    f.holdApart(cfg),
		encap:    bySocket,
		ike:      bySocket && cfg.KeyExchange,
		secret:   f.inject.own,
		ikeUp:    !bySocket && cfg.KeyExchange,
		prog:     prog,
		device:   f.tunnel.name,
		compat:   f.can.compat,
		sends:    f.inject.sends,
		sendMark: f.inject.mark,
		offload:  offload,
		gen:      gen,
		related:  cfg.Related && f.expectations.begin(f.cfg.Logger),
	}
	if offload && cfg.Interfaces {
		spec.via = newEpoch()
	}
	err = f.rules.install(spec, families(f.can.inet))
	if err != nil && spec.via != 0 {
		f.cfg.Logger.Warn("this kernel does not tell connections apart by interface, which the policy names: no flow is offloaded", "error", err)
		offload, spec.offload, spec.via = false, false, 0
		err = f.rules.install(spec, families(f.can.inet))
	}
	if err != nil {
		return err
	}
	if err := f.hang(cfg); err != nil {
		f.cfg.Logger.Info("ESP comes packet by packet, which is slower", "error", err)
	}
	f.generation, f.swept = gen, swept
	if offload {
		f.offload.Store(cfg.Offload)
	} else {
		f.offload.Store(0)
	}
	return nil
}

// Now is the clock that every packet's Input.Now is read from: nanoseconds
// since Open; it never goes back.
func (f *Firewall) Now() int64 { return int64(time.Since(f.start)) }

// Send sends a whole datagram of this host to where its header says, past the
// output chain: it is for sealed packets that were made without a clear one to
// stand for.
func (f *Firewall) Send(b []byte) error {
	to, ok := destination(b)
	if !ok {
		return errors.New("no IP datagram")
	}
	return f.inject.send(b, to, 0)
}

// IsLocal says whether packets to an address end at this host. Multicast
// addresses are not its business.
func (f *Firewall) IsLocal(a netip.Addr) bool { return f.addresses.isLocal(a) }

// Networks gives the networks that an interface has addresses in; nil if there is
// no such interface. It must not be changed.
func (f *Firewall) Networks(dev string) []netip.Prefix {
	index, ok := f.links.index(dev)
	if !ok {
		return nil
	}
	return f.addresses.networks(index)
}

// SourceFor gives the address that this host would use towards a peer; the
// zero Addr if it knows no way there.
func (f *Firewall) SourceFor(peer netip.Addr) netip.Addr { return f.inject.sourceFor(peer, 0) }

// Run reads the queues and has h judge each packet, until the context ends
// (nil) or a queue fails. h is not called after Run has returned. Packets then
// wait for the next Run or for Close.
func (f *Firewall) Run(ctx context.Context, h Handler) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	o, opens := h.(Opener)
	if f.cfg.Protect && !opens {
		return errors.New("nfq: a Firewall that protects needs a Handler that is an Opener")
	}
	var all sync.WaitGroup
	errs := make([]error, len(f.receivers))
	for i, r := range f.receivers {
		all.Go(func() {
			w := newWorker(f, h, f.stats[i])
			if errs[i] = r.receive(ctx, w); errs[i] != nil {
				cancel(errs[i]) // one queue less is a hole in the wall that stays shut: tell
			}
		})
	}
	for i, s := range f.inject.ports() {
		if s.fd < 0 || !opens {
			continue
		}
		u := newPortReader(newWorker(f, h, f.stats[len(f.receivers)+i]), o, s)
		all.Go(func() { u.receive(ctx) })
	}
	if opens {
		r := &intakeReader{newUnsealer(newWorker(f, h, f.stats[len(f.stats)-1]), o), f.intake}
		all.Go(func() { r.receive(ctx) })
	}
	if f.connections != nil {
		all.Go(func() { f.refuse(ctx) })
	}
	all.Go(func() { f.expectations.read(ctx) })
	all.Wait()
	return errors.Join(errs...)
}

// Reload puts another configuration in force, with the table in one
// transaction: no packet meets half of it. What cannot change without a
// restart is refused, and the old configuration stays.
func (f *Firewall) Reload(cfg Config) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return os.ErrClosed
	}
	if err := f.cfg.needsRestart(&cfg); err != nil {
		return err
	}
	if cfg.CopyRange != f.cfg.CopyRange {
		for _, r := range f.receivers {
			if err := r.setCopyRange(cfg.CopyRange); err != nil {
				return fmt.Errorf("copy range: %w", err)
			}
		}
	}
	if err := f.install(&cfg, true); err != nil {
		return err
	}
	f.cfg.CopyRange, f.cfg.FailOpen, f.cfg.Protect, f.cfg.Encapsulated = cfg.CopyRange, cfg.FailOpen, cfg.Protect, cfg.Encapsulated
	f.cfg.KeyExchange, f.cfg.Offload, f.cfg.Interfaces, f.cfg.Related = cfg.KeyExchange, cfg.Offload, cfg.Interfaces, cfg.Related
	f.links.strict.Store(cfg.Interfaces)
	return nil
}

// Close gives the queues up. With stayShut the table stays, in the form that
// lets nothing pass but loopback; otherwise it is removed, and the host is as
// open as the rest of its rules make it. Run must have been told to end.
func (f *Firewall) Close(stayShut bool) error {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return nil
	}
	f.closed = true // and the guard keeps still
	f.mu.Unlock()
	var err error
	if stayShut {
		err = f.rules.shut(&f.cfg, f.can, false)
	} else {
		err = f.rules.remove(f.cfg.Table)
	}
	return errors.Join(err, f.release())
}

// release closes all that open has opened.
func (f *Firewall) release() error {
	var errs []error
	for _, r := range f.receivers {
		errs = append(errs, r.close())
	}
	if f.guard != nil {
		errs = append(errs, f.guard.close())
	}
	if f.inject != nil {
		errs = append(errs, f.inject.close())
	}
	if f.tunnel != nil {
		errs = append(errs, f.tunnel.close())
	}
	if f.addresses != nil {
		f.addresses.tell(nil)
	}
	if f.intake != nil {
		errs = append(errs, f.intake.close())
	}
	if f.shortcut != nil {
		errs = append(errs, f.shortcut.close())
	}
	if f.links != nil {
		errs = append(errs, f.links.close())
	}
	if f.addresses != nil {
		errs = append(errs, f.addresses.close())
	}
	if f.connections != nil {
		errs = append(errs, f.connections.close())
	}
	if f.expectations != nil {
		errs = append(errs, f.expectations.close())
	}
	if f.rules != nil {
		errs = append(errs, f.rules.close())
	}
	f.procMu.Lock()
	defer f.procMu.Unlock()
	if f.proc != nil {
		errs = append(errs, f.proc.Close())
	}
	return errors.Join(errs...)
}
