package host

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/nfq"
	"github.com/ipfw/ipfw/packet"
	"github.com/ipfw/ipfw/rules"
)

// firewall is the kernel's side as the daemon needs it; nfq is the real one.
type firewall interface {
	// Run hands packets to h until ctx ends.
	Run(ctx context.Context, h nfq.Handler) error
	// Reload makes every flow come up again, in one transaction.
	Reload(*loaded) error
	// Close ends the kernel's side; with stayShut the table stays.
	Close(stayShut bool) error
	// Status calls read while no packet is being judged: see nfq.Firewall.StatsWith.
	Status(read func()) QueueStatus
	// Send sends a sealed datagram past the host's own rules.
	Send(b []byte) error
	// IsLocal says whether packets to an address end at this host.
	IsLocal(netip.Addr) bool
	// Networks gives the networks that an interface has addresses in.
	Networks(dev string) []netip.Prefix
	// Inherited says whether a daemon before had let through the flow of a
	// packet that came out of an SA.
	Inherited(*packet.Packet) bool
	// Master gives the connection that expects the packet's flow.
	Master(*engine.Input) (engine.Ends, bool)
	// Opener says who has opened a TCP connection of this host that was there
	// at the start; Found gives all that were.
	Opener(local, remote netip.AddrPort) engine.Opener
	Found() []nfq.Connection
	// Decided says that the policy in force has got another
	// engine.Generation, and is the same as before.
	Decided(generation uint32)
	// Carried tells what the kernel has carried of flows that it answers
	// for: of those that have ended, and with live of all others.
	Carried(live bool, yield func(*engine.Carried)) error
	// SourceFor is the address that this host uses towards another, the
	// zero Addr without a way there.
	SourceFor(netip.Addr) netip.Addr
	// HasRoute says whether there is a way to an address.
	HasRoute(netip.Addr) bool
	// RouterFor is the router by which this host reaches an address, the zero
	// Addr if there is none.
	RouterFor(netip.Addr) netip.Addr
	// Again sends a packet of this host that was held back, to be judged
	// like any other.
	Again(b []byte) error
	// Deliver hands a packet that came out of an SA, and has been judged, to
	// the kernel as one that has come in.
	Deliver(b []byte) error
	// Assign gives this host an address that a peer has lent it, from which
	// it reaches networks, even such as the peer is in; Unassign takes it
	// back. PeerMoved says that the peer is elsewhere.
	Assign(a netip.Addr, networks []netip.Prefix, peer netip.Addr) error
	Unassign(netip.Addr) error
	PeerMoved(a, peer netip.Addr) error
	// SendIKE and SendKeepalive send by UDP port 500 or 4500.
	SendIKE(*nfq.Datagram) error
	SendKeepalive(*nfq.Datagram) error
}

// look is what the kernel tells of connections; nil: it cannot be asked.
type look struct {
	connections func() ([]nfq.Connection, error)                             // nfq.FindConnections
	datagrams   func(want func(inode uint32) bool) ([]nfq.Connection, error) // nfq.FindDatagrams
}

func lookAtKernel() look {
	return look{connections: nfq.FindConnections, datagrams: nfq.FindDatagrams}
}

// opener is the kernel's side before there is a firewall.
type opener struct {
	find look
	// hold shuts a host that has no table, until open; it says whether there
	// was none.
	hold func(first *loaded, cores int, log *slog.Logger) (bool, error)
	// open opens the kernel's side for the first policy. From then on the
	// kernel holds packets until somebody runs the firewall. ike hears what
	// comes to UDP ports 500 and 4500 and is not for packets.
	open func(first *loaded, cores int, log *slog.Logger, ike func(*nfq.Datagram)) (firewall, error)
}

// kernel is the real firewall.
type kernel struct {
	*nfq.Firewall
	log *slog.Logger
	ike func(*nfq.Datagram)
	cfg atomic.Pointer[nfq.Config] // in force
}

func holdKernel(first *loaded, cores int, log *slog.Logger) (bool, error) {
	return nfq.Hold(kernelConfig(first, cores, log))
}

func openKernel(first *loaded, cores int, log *slog.Logger, ike func(*nfq.Datagram)) (firewall, error) {
	cfg := kernelConfig(first, cores, log)
	cfg.IKE, cfg.Older = ike, first.older
	fw, err := nfq.Open(cfg)
	if err != nil {
		return nil, err
	}
	k := &kernel{Firewall: fw, log: log, ike: ike}
	k.cfg.Store(&cfg)
	return k, nil
}

// kernelConfig is what a policy asks of the kernel.
func kernelConfig(l *loaded, cores int, log *slog.Logger) nfq.Config {
	s := &l.Settings
	queues := int(s.Queues)
	if queues == 0 {
		queues = cores
	}
	protect := slices.ContainsFunc(l.Engine.Rules, func(r engine.Rule) bool { return r.Action == engine.Protect })
	cfg := nfq.Config{Queue: s.Queue, Queues: queues, Mask: s.MarkMask, FailOpen: s.FailOpen, Protect: protect, Awake: cores, Logger: log}
	if s.Offload {
		cfg.Offload, cfg.Interfaces = l.decides, l.Engine.NamesInterfaces()
	}
	cfg.Related = l.Engine.Relates()
	// What IKE agrees on may turn out to go in UDP, and IKE itself does.
	cfg.Encapsulated = protect && slices.ContainsFunc(l.IPsec, func(s rules.IPsec) bool {
		return s.Manual == nil || s.Encap == rules.EncapUDP
	})
	cfg.KeyExchange = protect && slices.ContainsFunc(l.IPsec, func(s rules.IPsec) bool { return s.Manual == nil })
	return cfg
}

// Reload implements firewall.
func (k *kernel) Reload(l *loaded) error {
	cfg := kernelConfig(l, k.cfg.Load().Awake, k.log)
	cfg.IKE = k.ike
	if err := k.Firewall.Reload(cfg); err != nil {
		return err
	}
	k.cfg.Store(&cfg)
	return nil
}

// HasRoute implements firewall.
func (k *kernel) HasRoute(a netip.Addr) bool { return k.SourceFor(a).IsValid() }

// Status implements firewall.
func (k *kernel) Status(read func()) QueueStatus {
	st, cfg := k.StatsWith(read), k.cfg.Load()
	q := QueueStatus{
		First: cfg.Queue, Queues: cfg.Numbers(), OnFailure: "shut", Offload: "none",
		Packets: st.Packets, Accepted: st.Accepted, Dropped: st.Dropped,
		Rejected: st.Rejected, RejectsSuppressed: st.Suppressed,
		Unreadable: st.Unreadable, SendErrors: st.SendErrors, Waiting: st.Waiting,
		Sealed: st.Sealed, Direct: st.Direct, NotDirect: st.NotDirect, Opened: st.Opened, Unsent: st.Unsent,
		QueueDropped: st.QueueDropped, SocketDropped: st.UserDropped, NewDropped: st.NewDropped, Overruns: st.Overruns,
		PortTaken: st.PortTaken, TableOwned: st.Owned, TableRenewed: st.Renewed, TableNotRenewed: st.NotRenewed, TableChangedBy: st.ChangedBy,
		Flowtables: st.Flowtables, Apart: st.Apart, NotApart: st.NotApart,
	}
	w := k.Ways()
	q.Kernel, q.UpBy, q.ESPBy = w.Kernel, w.Queue, w.ESP
	if cfg.FailOpen {
		q.OnFailure = "open"
	}
	if k.Offloading() {
		q.Offload = "flow"
	}
	return q
}
