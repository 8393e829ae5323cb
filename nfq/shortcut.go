package nfq

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/nftables"
	"github.com/ipfw/ipfw/packet"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// shortcut lets sealed datagrams that go in bulk leave by a packet socket
// (packet(7)), to the queueing discipline of their device at once, instead of
// by the raw socket, whose way through routing, netfilter and IPsec takes as
// long again. It may do so only while nothing on that way would change them or
// stop them:
//
//	raw socket --> route --> IPsec policy --> output --> postrouting --> cgroup --> neighbour --.
//	                                                                                             >-- device
//	packet socket -------- the kernel's own answers to all of that, as of now ------------------'
//
// So the kernel is asked, per destination (shortcutroute.go), and what it has
// in the way of any (shortcutclear.go); the answer is good for a second at
// most, after which some datagrams go the long way again, so that the
// neighbour's entry stays in use, and until there is news of anything that it
// hangs on (shortcutnews.go). What is not known goes the long way. Senders never
// wait: a destination that they have no answer about they have asked for.
type shortcut struct {
	fd   int // the packet socket, mark set; -1 without
	log  *slog.Logger
	now  func() int64
	ways atomic.Pointer[map[netip.Addr]*shortWay]
	asks chan netip.Addr
	done chan struct{}
	news []*netlink.Conn // rtnetlink, XFRM
	all  sync.WaitGroup

	mu    sync.Mutex // whoever changes ways
	heard uint64     // pieces of news
	dirty bool       // what is in the way has to be looked for again
	why   string     // the last answer was no, because of this; "": it was yes

	// Of the goroutine that asks alone.
	table    string // ours
	mark     uint32
	local    func(netip.Addr) bool
	route    *netlink.Conn
	xfrm     *netlink.Conn // nil in a kernel without
	rules    *nftables.Conn
	cgroup   int      // that of the sockets, a directory; -1: it is not known
	ns       *os.File // the network namespace
	here     bool     // the goroutine is in it
	joined   bool     // news is coming
	looked   int64    // when what is in the way was last looked for, ...
	obstacle error    // ... and what was there
}

// shortWay is what the kernel has answered about a destination. It is never changed.
type shortWay struct {
	to    netip.Addr
	until int64 // on the Firewall's clock
	open  bool  // the shortcut may be taken

	name [unix.SizeofSockaddrLinklayer]byte // for the packet socket
	link uint32
	hop  netip.Addr // the neighbour
	mac  [6]byte
	mtu  int
}

const (
	// shortcutBulk is how many datagrams have to go at once to be worth it.
	shortcutBulk = 8
	// shortcutLife is how long an answer is good for, in nanoseconds.
	shortcutLife = int64(time.Second)
	// shortcutWays is how many destinations are known at most. Others go the
	// long way until one of these has not been asked for.
	shortcutWays = 256
	// shortcutCalm is how long, in nanoseconds, all stay on the long way at
	// least when what is in the way of any may have changed: somebody may be
	// at it.
	shortcutCalm = int64(50 * time.Millisecond)
)

// openShortcut makes all sockets, in the network namespace of the calling
// thread. Where the kernel lacks something, there is no shortcut.
func openShortcut(f *Firewall) *shortcut {
	s := &shortcut{
		fd: -1, cgroup: -1, log: f.cfg.Logger, now: f.Now, asks: make(chan netip.Addr, 64), done: make(chan struct{}),
		table: f.cfg.Table, mark: f.inject.mark, local: f.addresses.isLocal, dirty: true,
	}
	s.ways.Store(new(map[netip.Addr]*shortWay))
	if f.cfg.noShortcut {
		return s
	}
	if err := s.open(); err != nil {
		s.log.Info("native ESP leaves by raw sockets alone, which is slower", slog.Any("error", err))
		s.why = err.Error()
		if s.fd >= 0 {
			_ = unix.Close(s.fd)
			s.fd = -1
		}
		return s
	}
	for _, c := range s.news {
		s.all.Go(func() { s.follow(c) })
	}
	s.all.Go(s.answer)
	return s
}

func (s *shortcut) open() (err error) {
	// Protocol 0: nothing comes in by it.
	s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		s.fd = -1
		return fmt.Errorf("packet socket: %w", err)
	}
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_MARK, int(s.mark)); err != nil {
		return fmt.Errorf("packet socket: mark: %w", err)
	}
	if s.ns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return err
	}
	if s.route, err = netlink.Dial(unix.NETLINK_ROUTE, nil); err != nil {
		return err
	}
	if s.rules, err = nftables.New(nftables.AsLasting()); err != nil {
		return err
	}
	news, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return err
	}
	s.news = append(s.news, news)
	s.xfrm, err = netlink.Dial(unix.NETLINK_XFRM, nil)
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil // without IPsec in the kernel
	}
	if err != nil {
		return err
	}
	if news, err = netlink.Dial(unix.NETLINK_XFRM, nil); err == nil {
		s.news = append(s.news, news)
	}
	return err
}

// way gives the way to the destination of datagrams that go in bulk; nil if
// they have to take the long one. now is the Firewall's clock.
func (s *shortcut) way(datagrams [][]byte, now func() int64) *shortWay {
	if s == nil || s.fd < 0 || len(datagrams) < shortcutBulk {
		return nil
	}
	to, ok := destination(datagrams[0])
	if !ok {
		return nil
	}
	if w := (*s.ways.Load())[to]; w != nil && now() < w.until {
		if !w.open {
			return nil
		}
		return w
	}
	select {
	case s.asks <- to:
	default: // others are asked about
	}
	return nil
}

// because says why datagrams in bulk do not take the shortcut, as far as the
// last destination that was asked about is concerned; "" if they do.
func (s *shortcut) because() string {
	if s == nil {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.why
}

// sends says whether a socket is the one of the shortcut.
func (s *shortcut) sends(fd int) bool { return s != nil && s.fd >= 0 && fd == s.fd }

// fits says whether the raw socket would send a datagram as it is: to the
// way's destination, no longer than its MTU, and with nothing to be filled in.
func (w *shortWay) fits(b []byte) bool {
	if len(b) > w.mtu {
		return false
	}
	if b[0]>>4 == 6 {
		return w.to.Is6() && [16]byte(b[24:]) == w.to.As16()
	}
	const df = 0x40
	return w.to.Is4() && [4]byte(b[16:]) == w.to.As4() && b[0] == 4<<4|5 &&
		(b[6]&df != 0 || b[4]|b[5] != 0) && packet.Checksum(b[:20], 0) == 0
}

// answer asks the kernel about destinations, until the end.
func (s *shortcut) answer() {
	runtime.LockOSThread()      // for good: the thread ends with the goroutine
	s.here = enter(s.ns) == nil // which /proc/thread-self depends on
	for {
		select {
		case <-s.done:
			return
		case to := <-s.asks:
			if w := (*s.ways.Load())[to]; w == nil || s.now() >= w.until {
				s.ask(to)
			}
		}
	}
}

// ask finds out the way to a destination. What it finds counts only if there
// was no news meanwhile: later news undoes it.
func (s *shortcut) ask(to netip.Addr) {
	s.mu.Lock()
	heard := s.heard
	s.mu.Unlock()
	w := &shortWay{to: to}
	err := s.find(w)
	w.open = err == nil
	w.until = s.now() + shortcutLife
	switch {
	case errors.Is(err, errJustNow):
		w.until = s.looked + shortcutCalm
	case errors.Is(err, errNeighbour):
		w.until = s.now() + shortcutCalm // the long way makes the kernel find out
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.heard == heard {
		s.keep(w)
	}
	switch {
	case err == nil:
		s.why = ""
	case !errors.Is(err, errJustNow):
		s.why = fmt.Sprintf("%v: %v", to, err)
	}
}

// keep puts a way among the others. s.mu is held.
func (s *shortcut) keep(w *shortWay) {
	was := *s.ways.Load()
	ways := make(map[netip.Addr]*shortWay, len(was)+1)
	for to, o := range was {
		if o.until+shortcutLife > w.until-shortcutLife {
			ways[to] = o
		}
	}
	if _, known := ways[w.to]; known || len(ways) < shortcutWays {
		ways[w.to] = w
	}
	s.ways.Store(&ways)
}

func (s *shortcut) find(w *shortWay) error {
	if !s.joined {
		if err := s.join(); err != nil {
			return err
		}
		s.joined = true
	}
	if err := s.clear(); err != nil {
		return err
	}
	return s.lead(w)
}

// linklayer is the address of a neighbour for the packet socket, struct
// sockaddr_ll.
func (w *shortWay) linklayer() {
	ethertype := uint16(unix.ETH_P_IP)
	if w.to.Is6() {
		ethertype = unix.ETH_P_IPV6
	}
	binary.NativeEndian.PutUint16(w.name[0:], unix.AF_PACKET)
	binary.BigEndian.PutUint16(w.name[2:], ethertype)
	binary.NativeEndian.PutUint32(w.name[4:], w.link)
	w.name[11] = byte(copy(w.name[12:], w.mac[:]))
}

func (s *shortcut) close() error {
	close(s.done)
	var errs []error
	for _, c := range append(s.news, s.route, s.xfrm) {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	s.all.Wait()
	if s.rules != nil {
		errs = append(errs, s.rules.CloseLasting())
	}
	if s.ns != nil {
		errs = append(errs, s.ns.Close())
	}
	for _, fd := range []int{s.fd, s.cgroup} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	return errors.Join(errs...)
}
