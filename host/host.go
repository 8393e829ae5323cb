// Package host is a running host: it reads the policy, opens the kernel,
// judges packets, and answers on a control socket.
//
//	rules.Load --> engine.New --> nfq.Open --> READY
//	                   |              |
//	                   |   packet --> Handle --> engine.Judge --> verdict
//	                   |              |
//	                   |              +--> ring --> log, `ipfw events`
//	SIGHUP, /v1/reload +--> engine.Reload, then nfq.Reload
//
// Nothing that happens here can open the host by accident: a policy that is
// not good changes nothing; once it is good the host is shut (nfq.Hold), so that a start
// that fails later leaves it so; a daemon that fails leaves its table and thereby
// a shut host (or what `on_failure` says), and only a stop that was asked for
// removes the table. The one exception is wanted: a start that asked to be
// confirmed, and was not, goes away again, and shuts nothing before it runs.
//
// Limits: one daemon for each control socket and network namespace; events
// are kept in memory only.
package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
)

// Options say what to run. Paths is required.
type Options struct {
	// Paths is the policy: files, folders, "-" or profile:NAME.
	Paths []string
	// Socket is where to listen for commands; default DefaultSocket.
	Socket string
	// Logger gets every event; default slog.Default().
	Logger *slog.Logger
	// Version is what Status shows.
	Version string
	// Stdin is what the path "-" reads, once; a reload then uses the same
	// text again.
	Stdin io.Reader
	// StayShut leaves the table when the daemon stops, so that nothing new
	// gets in.
	StayShut bool
	// Confirm, if not 0, stops the daemon and removes its table unless
	// somebody confirms within this time after the start.
	Confirm time.Duration
	// StateDir is where what must outlive the daemon is kept: the sequence
	// numbers of SAs whose keys were set by hand. Empty: nowhere.
	StateDir string
	// SSHConnection is the ssh connection of whoever starts this (FindSSH),
	// to warn of a lock-out; empty: none.
	SSHConnection string
	// Force puts a policy in force even if it cuts the session of whoever starts
	// this, or, with Shut, leaves it without a way in.
	Force bool
	// Reload makes the daemon read its policy again (SIGHUP).
	Reload <-chan os.Signal
	// Cores is how many processors to spread packets over; default
	// runtime.GOMAXPROCS. While they are busy, as many threads again wait awake
	// for packets, which Go's scheduler takes for work: GOMAXPROCS should leave
	// room for both.
	Cores int
	// LimitMemory has Go's runtime collect garbage earlier where the host has little
	// memory, by a limit as GOMEMLIMIT is one.
	LimitMemory bool
	// OnReady is called once, when packets are judged.
	OnReady func(Status)
}

// daemon is a running host. change orders everything that changes the policy,
// and is held for as long as that takes. mu guards the fields below it, and
// nobody waits for anything while it is held, so that a status is had at any
// time. What change and mu both guard is written with both held, and read with
// either. The packet path takes none of them.
type daemon struct {
	o        Options
	loader   *loader
	engine   *engine.Engine
	keeper   *keeper
	exchange *exchange
	firewall firewall
	ring     *ring
	log      *slog.Logger // of the daemon's parts: their warnings are events, too
	notify   notifier
	started  time.Time
	stop     context.CancelCauseFunc
	find     look

	census     census
	toldEnding time.Time // when it was last told of; the goroutine of serve only

	change     sync.Mutex // before mu
	mu         sync.Mutex
	current    *loaded // in force; guarded by both
	pending    *pending
	reloading  time.Time // since when; zero: nobody reloads
	rolledBack time.Time // since when the policy in force is not the one that the files have; zero: it is
	stopping   bool      // guarded by both
	overflowed uint64    // queue drops already told
	renewed    uint64    // changes of the table already told
	notRenewed uint64    // ... and those that stayed
	flowtables string    // what was told last of those of others
	suppressed uint64    // malformed and refused packets without an event, so far

	malformed throttle
	refused   throttle      // packets that IPsec has refused: auditable events
	repeats   repeats       // of them, those that say the same as one before
	logRate   atomic.Uint32 // of the policy in force; 0: no limit
	logWhat   atomic.Uint32 // rules.LogWhat of the policy in force
	discards  throttle      // packets that are discarded, and get an event all the same
	openings  throttle      // packets that open a flow, the same
	sources   sources       // of what is discarded
	unlogged  atomic.Uint64
}

// ringSize is how many events are kept. Of malformed packets so many get an
// event in a second, and so many at once.
const (
	ringSize       = 4096
	malformedRate  = 10
	malformedBurst = 20
)

// Run is the daemon. It returns when ctx ends, nil if it stopped as asked,
// or when something fails. Errors are sentences for the administrator.
func Run(ctx context.Context, o Options) error {
	return run(ctx, o, opener{find: lookAtKernel(), hold: holdKernel, open: openKernel})
}

// run is Run with its outer seam, the kernel.
func run(ctx context.Context, o Options, kernel opener) (err error) {
	if o.Socket == "" {
		o.Socket = DefaultSocket
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Cores == 0 {
		o.Cores = runtime.GOMAXPROCS(0)
	}
	if o.LimitMemory {
		limited, end := context.WithCancel(ctx)
		defer end()
		limitMemory(limited, ownMemoryShare("/"))
	}
	loader := newLoader(o)
	first, bad := loader.load(o.SSHConnection)
	if bad != nil {
		bad.Message += ", nothing was changed"
		return bad
	}
	first.generation = 1
	socket, err := listenControl(o.Socket)
	if err != nil {
		return err
	}
	defer socket.Close()
	// Without them it is not known of some connections who opened them, which
	// open says as well.
	ring := newRing(ringSize)
	log := newWarner(o.Logger, ring)
	openers := newOpeners(o.StateDir, log)
	if kernel.find.connections != nil {
		first.older, _ = kernel.find.connections()
		openers.recall(first.older)
	}
	if o.Confirm == 0 && !o.Force {
		if err := refuseToCut(first, &kernel.find, o.SSHConnection); err != nil {
			return err
		}
	}
	// Now that the policy is good, and nobody else enforces one, the host is not
	// to be open whatever fails below. A start that asked to be confirmed is
	// one that may go wrong.
	var held bool // ... and that was our doing
	if o.Confirm == 0 && !first.Settings.FailOpen {
		if held, err = kernel.hold(first, o.Cores, o.Logger); err != nil {
			return err
		}
	}
	defer func() {
		if held && err != nil {
			err = fmt.Errorf("%w; the host had no table, and now lets nothing pass but loopback until ipfw runs: put right what is said here, or open the host with `ipfw open`", err)
		}
	}()

	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	d := &daemon{
		o: o, loader: loader, ring: ring, log: log, notify: notifier{log},
		started: time.Now(), stop: stop, current: first,
		malformed: throttle{perSecond: malformedRate, burst: malformedBurst},
		refused:   throttle{perSecond: malformedRate, burst: malformedBurst},
		discards:  throttle{perSecond: sampleRate, burst: sampleBurst},
		openings:  throttle{perSecond: sampleRate, burst: sampleBurst},
	}
	d.find = kernel.find
	d.keeper = newKeeper(newNumbers(o.StateDir, log), d.ring)
	d.exchange = newExchange(d)
	d.engine = engine.New(&first.Engine, engine.Options{
		SAD: d.keeper.sad, Outbound: d.keeper.outbound, PathReport: d.keeper.pathReport, ICMPError: d.exchange.icmpError,
		Hold: d.exchange.wait, Carries: d.keeper.agreed.carries, Opened: d.exchange.opened, Rekey: d.exchange.rekey, Early: d.exchange.early.add,
		IsLocal:   func(a netip.Addr) bool { return d.firewall.IsLocal(a) },
		Networks:  func(dev string) []netip.Prefix { return d.firewall.Networks(dev) },
		Inherited: func(p *packet.Packet) bool { return d.firewall.Inherited(p) },
		Master:    func(in *engine.Input) (engine.Ends, bool) { return d.firewall.Master(in) },
		Opener:    func(local, remote netip.AddrPort) engine.Opener { return d.firewall.Opener(local, remote) },
	})
	d.setLog(first)
	blocks, err := d.keeper.prepare(first.Policy, d.now())
	if err == nil {
		err = d.keeper.put(blocks)
	}
	if err != nil {
		return err
	}
	defer d.keeper.close()
	peers, err := d.exchange.prepare(first.Policy)
	if err != nil {
		return err
	}
	defer d.exchange.undo()
	logged := make(chan struct{})
	rd := d.ring.reader(d.ring.size()) // what the SAs had to say, too
	go func() { defer close(logged); d.logEvents(rd) }()
	defer func() { d.ring.close(); <-logged }()
	d.keeper.settle(nil, blocks, d.now())

	first.decides = d.engine.Generation()
	if d.firewall, err = kernel.open(first, o.Cores, log, d.exchange.heard); err != nil {
		return err
	}
	openers.keep(d.firewall.Found())
	held = false // by a daemon that runs, and knows what to do at its end
	return d.serve(ctx, socket, peers)
}

// serve runs the open daemon until ctx ends or a part of it fails.
func (d *daemon) serve(ctx context.Context, socket *controlSocket, peers []ikePeer) error {
	var wg sync.WaitGroup
	// Packets pass until peers have heard of the end.
	packets, endPackets := context.WithCancel(context.WithoutCancel(ctx))
	defer endPackets()
	wg.Go(func() {
		err := d.firewall.Run(packets, d)
		if packets.Err() != nil {
			return
		}
		if err == nil {
			err = errors.New("the packet loop has ended by itself")
		}
		d.stop(err)
	})
	wg.Go(func() { d.dummies(ctx) })
	wg.Go(func() { d.hangups(ctx) })
	server := d.newServer()
	wg.Go(func() { server.Serve(socket) })

	d.mu.Lock()
	d.await(d.o.Confirm, nil)
	d.ring.add(&Event{Kind: KindStart, Generation: d.current.generation, Message: d.current.summary(), Diagnostics: d.current.Warnings})
	d.tellFound()
	d.mu.Unlock()
	d.exchange.commit(peers)
	d.tellEnding(time.Now())
	d.tellRoutes(d.current)
	d.notify.ready()
	if d.o.OnReady != nil {
		d.o.OnReady(d.status())
	}
	giveBack()

	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := uint64(1); ; n++ {
		select {
		case <-tick.C:
			d.carried(false)
			d.engine.Expire(d.now())
			d.keeper.tick(d.now())
			d.exchange.tick(d.now(), n)
			d.watch()
			if now := time.Now(); now.Sub(d.toldEnding) >= warnAgain {
				d.tellEnding(now)
			}
		case <-ctx.Done():
			server.Close()
			d.exchange.stop()
			endPackets()
			wg.Wait()
			return d.shutdown(context.Cause(ctx))
		}
	}
}

// shutdown closes the kernel's side. A stop that was asked for removes the
// table unless it was to stay. A failure leaves it, so that traffic is dropped
// rather than let through, unless the policy says on_failure = "open". A start
// that nobody confirmed removes it.
func (d *daemon) shutdown(cause error) error {
	d.change.Lock()
	defer d.change.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stopping = true
	d.notify.stopping()
	asked := errors.Is(cause, context.Canceled)
	stay := d.o.StayShut || !asked && !d.current.Settings.FailOpen
	if errors.Is(cause, errNotConfirmed) {
		stay = false
	}
	if p := d.pending; p != nil {
		p.timer.Stop()
		if p.back == nil {
			stay = false
		}
	}

	message := "the table is removed, nothing is filtered any more"
	if stay {
		message = "the table stays, nothing gets in or out"
	}
	err := d.firewall.Close(stay)
	if err != nil {
		message = "closing the kernel's side failed: " + err.Error()
	}
	if !asked {
		message = cause.Error() + "; " + message
		err = errors.Join(cause, err)
	}
	d.ring.add(&Event{Kind: KindStop, Message: message})
	return err
}

// hangups reloads whenever it is asked to by a signal. What came of it is an event.
func (d *daemon) hangups(ctx context.Context) {
	for {
		select {
		case <-d.o.Reload:
			d.reload(ReloadRequest{Force: true}, 0)
		case <-ctx.Done():
			return
		}
	}
}

// now is the clock of the packet path, in nanoseconds since the start.
func (d *daemon) now() int64 { return int64(time.Since(d.started)) }

// watch tells, once a second at most, what went wrong without an event of its
// own: packets that the queue dropped, events that were not written.
func (d *daemon) watch() {
	d.mu.Lock()
	defer d.mu.Unlock()
	st := d.firewall.Status(func() {})
	by := "somebody else has changed the nftables table"
	if st.TableChangedBy != "" {
		by += " (" + st.TableChangedBy + ")"
	}
	if n := st.TableNotRenewed - d.notRenewed; n > 0 {
		d.notRenewed = st.TableNotRenewed
		d.ring.add(&Event{Kind: KindTable, Count: n,
			Message: by + ", and it cannot be put back: THE HOST MAY BE OPEN; the log says why"})
	}
	if n := st.TableRenewed - d.renewed; n > 0 {
		d.renewed = st.TableRenewed
		d.ring.add(&Event{Kind: KindTable, Count: n,
			Message: by + "; it has been put back, and until then the host may have been open"})
	}
	d.watchFlowtables(&st)
	if drops := st.drops(); drops > d.overflowed {
		d.ring.add(&Event{Kind: KindOverflow, Count: drops - d.overflowed,
			Message: fmt.Sprintf("the kernel dropped %d packets because ipfw was too slow", drops-d.overflowed)})
		d.overflowed = drops
	}
	if n := d.malformed.take(); n > 0 {
		d.suppressed += n
		d.ring.add(&Event{Kind: KindSuppressed, Count: n,
			Message: fmt.Sprintf("%d more malformed packets were counted but not logged", n)})
	}
	if n := d.refused.take(); n > 0 {
		d.suppressed += n
		d.ring.add(&Event{Kind: KindSuppressed, Count: n,
			Message: fmt.Sprintf("%d more packets that IPsec refused were counted but not logged", n)})
	}
}
