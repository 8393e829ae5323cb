package ike

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// This file is the only one of the package with sockets, a clock and
// goroutines. One goroutine owns the Core; everybody else hands it work.
//
//	port 500  --+                            +--> Act (SAD)
//	port 4500 --+--> lanes --> Core, timer --+--> port 500, 4500 or Send
//	Deliver   --+      ^         ^           +--> Event
//	           Call, Post        +-- workers <--> Jobs

// ServerConfig is what a Server needs beside its Core's Config.
type ServerConfig struct {
	Config
	// Act does what the Core asks of the SAD, in the Server's goroutine and
	// before any datagram of the same step goes out. It must not wait for
	// the Server.
	Act func([]Action)
	// Acted comes after a step in which Act was called, when its datagrams
	// are out.
	Acted func()
	// Event hears events, in the same goroutine.
	Event func(Event)
	// Send sends what leaves, when somebody else has the ports; what arrives
	// there comes by Deliver. The marker on the port for NAT traversal is
	// theirs to add and strip. nil: the ports are ours.
	Send func(Datagram) error
	// Workers is how many goroutines do the public-key work of handshakes; 0:
	// as many as there are processors.
	Workers int
}

// Server is a Core on the network. All its methods may be called concurrently.
type Server struct {
	cfg     ServerConfig
	core    *Core
	sockets []*socket
	lanes   *lanes
	workers *workers // while it runs
	work    chan func(*Core)
	done    chan struct{}
	unsent  atomic.Uint64
}

// workLength is how many calls may wait for the Server.
const workLength = 256

// errStopped answers whoever calls a Server that has ended.
var errStopped = errors.New("ike: the key exchange has stopped")

// Listen makes a Core and opens its ports, IPv4 and IPv6, in the network
// namespace of the calling thread. Run does the rest.
func Listen(cfg ServerConfig) (*Server, error) {
	// A worker that brings a result finds the next job waiting.
	cfg.Workers = or(cfg.Workers, runtime.GOMAXPROCS(0))
	cfg.Jobs = 2 * cfg.Workers
	core, err := New(cfg.Config)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, core: core, lanes: newLanes(), work: make(chan func(*Core), workLength), done: make(chan struct{})}
	runtime.LockOSThread() // all sockets in one network namespace
	defer runtime.UnlockOSThread()
	var ports []uint16
	if cfg.Send == nil {
		ports = append(ports, core.cfg.Port)
	}
	if cfg.Send == nil && core.cfg.NATPort != core.cfg.Port {
		ports = append(ports, core.cfg.NATPort)
	}
	for _, port := range ports {
		for _, v6 := range []bool{false, true} {
			c, err := openSocket(v6, port, port == core.cfg.NATPort)
			if v6 && errors.Is(err, unix.EAFNOSUPPORT) {
				continue // a host without IPv6
			}
			if err != nil {
				return nil, errors.Join(err, s.closeSockets())
			}
			s.sockets = append(s.sockets, c)
		}
	}
	return s, nil
}

// Run serves until ctx ends; then it deletes what it has agreed with peers,
// for which it waits as long as farewell, and closes its ports.
func (s *Server) Run(ctx context.Context, farewell time.Duration) {
	var readers sync.WaitGroup
	for _, c := range s.sockets {
		readers.Go(func() { c.receive(s) })
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	leaving := ctx.Done()
	var gone <-chan time.Time
	always := make(chan struct{})
	close(always)
	s.workers = newWorkers(s.cfg.Workers, s.cfg.Jobs)
	// What was asked for before, as peers of the policy, goes before all calls: a
	// peer that calls meanwhile is not unknown.
	for waiting := len(s.work); waiting > 0; waiting-- {
		(<-s.work)(s.core)
	}
	s.apply(s.core.Start(time.Now()))
	suspect := func(d Datagram) bool { return s.core.Suspect(time.Now(), d) }
loop:
	for {
		s.finish()
		ready := s.lanes.ready
		if d, ok := s.lanes.next(suspect); ok {
			s.apply(s.core.Handle(time.Now(), d))
			ready = always // there may be more: only look whether there is other work
		}
		s.set(timer)
		select {
		case <-ready:
		case f := <-s.workers.done:
			s.apply(s.core.Done(time.Now(), f.id, f.result))
		case f := <-s.work:
			f(s.core)
		case <-timer.C:
			s.apply(s.core.Tick(time.Now()))
		case <-leaving:
			leaving = nil
			gone = time.After(farewell)
			s.apply(s.core.Terminate(time.Now(), "", ""))
		case <-gone:
			break loop
		}
		if leaving == nil && s.core.Stats().SAs == 0 {
			break
		}
	}
	close(s.done)
	s.workers.close()
	s.core.abandonEAP()
	_ = s.closeSockets()
	readers.Wait()
}

// finish takes what the workers have done by now, before anything new: as much as
// may be out at once, for they go on meanwhile.
func (s *Server) finish() {
	for range s.cfg.Jobs {
		select {
		case f := <-s.workers.done:
			s.apply(s.core.Done(time.Now(), f.id, f.result))
		default:
			return
		}
	}
}

// set makes the timer ring when the Core wants it.
func (s *Server) set(t *time.Timer) {
	wait := time.Hour
	if at, ok := s.core.Next(); ok {
		wait = max(0, time.Until(at))
	}
	t.Reset(wait)
}

// apply does what a step of the Core asks for: SAs first, because the peer may
// use them as soon as it has our message.
func (s *Server) apply(o Output) {
	if len(o.Actions) > 0 && s.cfg.Act != nil {
		s.cfg.Act(o.Actions)
	}
	for _, j := range o.Jobs {
		s.workers.todo <- j // it has room
	}
	var refused []refusedDatagram
	for _, d := range o.Send {
		if err := s.send(d); err != nil {
			s.unsent.Add(1) // it counts as lost on the way, and is sent again
			if why := unsentText(err, &d); why != "" && len(refused) < maxRefused {
				refused = append(refused, refusedDatagram{d.Local, d.Remote, why})
			}
		}
	}
	if s.cfg.Event != nil {
		for _, e := range o.Events {
			s.cfg.Event(e)
		}
	}
	if len(o.Actions) > 0 && s.cfg.Acted != nil {
		s.cfg.Acted()
	}
	for _, r := range refused {
		s.apply(s.core.Unreachable(time.Now(), r.local, r.remote, r.why)) // which sends nothing
	}
}

// refusedDatagram is one that the kernel has not sent.
type refusedDatagram struct {
	local, remote netip.AddrPort
	why           string
}

// maxRefused is of how many of them in one step people are told.
const maxRefused = 16

func (s *Server) send(d Datagram) error {
	nat := d.Local.Port() == s.core.cfg.NATPort
	if s.cfg.Send != nil {
		return s.cfg.Send(d)
	}
	for _, c := range s.sockets {
		if c.v6 == d.Remote.Addr().Is6() && c.nat == nat {
			return c.send(d)
		}
	}
	return unix.EAFNOSUPPORT
}

// Deliver brings a datagram that arrived at somebody else's socket, without
// the non-ESP marker; its Data is the Server's from now on. It never waits.
func (s *Server) Deliver(d Datagram) { s.lanes.add(d) }

// Call has the Core do something and waits until that is done.
func (s *Server) Call(f func(c *Core, now time.Time) Output) error {
	finished := make(chan struct{})
	work := func(c *Core) {
		s.apply(f(c, time.Now()))
		close(finished)
	}
	select {
	case s.work <- work:
	case <-s.done:
		return errStopped
	}
	select {
	case <-finished:
		return nil
	case <-s.done:
		return errStopped
	}
}

// Post has the Core do something soon, and never waits; false: there is too
// much to do already, or the Server has ended.
func (s *Server) Post(f func(c *Core, now time.Time) Output) bool {
	select {
	case s.work <- func(c *Core) { s.apply(f(c, time.Now())) }:
		return true
	default:
		return false
	}
}

// Losses counts datagrams that are lost, as any may be.
type Losses struct {
	Received uint64 // came faster than they could be read
	Calls    uint64 // those of them that were the first of a stranger
	Unsent   uint64 // the kernel would not send them
}

// Losses gives the counters.
func (s *Server) Losses() Losses {
	l := Losses{Calls: s.lanes.lost[laneCall].Load(), Unsent: s.unsent.Load()}
	for i := range s.lanes.lost {
		l.Received += s.lanes.lost[i].Load()
	}
	return l
}

// Close gives up the ports of a Server that was never run.
func (s *Server) Close() error { return s.closeSockets() }

func (s *Server) closeSockets() error {
	var errs []error
	for _, c := range s.sockets {
		errs = append(errs, c.conn.Close())
	}
	return errors.Join(errs...)
}

// socket is one UDP port of one family.
type socket struct {
	conn *net.UDPConn
	v6   bool
	nat  bool // messages stand behind a non-ESP marker
	port uint16
}

func openSocket(v6 bool, port uint16, nat bool) (*socket, error) {
	network := "udp4"
	if v6 {
		network = "udp6"
	}
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		ctl := raw.Control(func(fd uintptr) { err = options(int(fd), v6) })
		return errors.Join(ctl, err)
	}}
	conn, err := lc.ListenPacket(context.Background(), network, fmt.Sprintf(":%d", port))
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return nil, fmt.Errorf("UDP port %d is taken, by another IKE daemon perhaps: stop it, or remove the ike blocks from the policy", port)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("UDP port %d needs the right to bind to it (root, or CAP_NET_BIND_SERVICE): %w", port, err)
	case err != nil:
		return nil, fmt.Errorf("UDP port %d: %w", port, err)
	}
	return &socket{conn: conn.(*net.UDPConn), v6: v6, nat: nat, port: port}, nil
}

// options: the address that a datagram came to is told with it, and what we
// send may be fragmented, for not every peer knows RFC 7383.
func options(fd int, v6 bool) error {
	// As root there may be room for the answers of thousands.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
	if v6 {
		return errors.Join(
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1),
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1),
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT))
	}
	return errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT))
}

// receive reads datagrams until the socket is closed.
func (c *socket) receive(s *Server) {
	buf, oob := make([]byte, 1<<16), make([]byte, 128)
	for {
		n, on, _, from, err := c.conn.ReadMsgUDPAddrPort(buf, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // no memory, or the like: it passes
			continue
		}
		b := buf[:n]
		if c.nat {
			if n < 4 || b[0]|b[1]|b[2]|b[3] != 0 { // ESP, or a keepalive
				continue
			}
			b = b[4:]
		}
		local, ok := arrivedAt(oob[:on])
		if !ok || len(b) < headerLen {
			continue
		}
		s.Deliver(Datagram{
			Local:  netip.AddrPortFrom(local, c.port),
			Remote: netip.AddrPortFrom(from.Addr().Unmap(), from.Port()),
			Data:   append([]byte(nil), b...),
		})
	}
}

// arrivedAt reads the local address out of control messages.
func arrivedAt(oob []byte) (netip.Addr, bool) {
	for len(oob) > 0 {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return netip.Addr{}, false
		}
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			return netip.AddrFrom4([4]byte(data[8:12])), true // ipi_addr: the header's destination
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			return netip.AddrFrom16([16]byte(data[:16])), true
		}
		oob = rest
	}
	return netip.Addr{}, false
}

// send sends from the address that the Core names.
func (c *socket) send(d Datagram) error {
	b := d.Data
	if c.nat && !d.Keepalive {
		b = append(make([]byte, 4, 4+len(b)), b...)
	}
	var oob []byte
	if a := d.Local.Addr(); a.IsValid() && c.v6 {
		oob = unix.PktInfo6(&unix.Inet6Pktinfo{Addr: a.As16()})
	} else if a.IsValid() {
		oob = unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: a.As4()})
	}
	_, _, err := c.conn.WriteMsgUDPAddrPort(b, oob, d.Remote)
	return err
}
