package nfq

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// injector sends whole IP packets that the output chain lets pass. All its
// methods may be called concurrently.
type injector struct {
	sends credential // of the sockets that the output chain lets pass
	mark  uint32     // of what they send, where the credential alone is not ours; 0: none
	own   uint32     // the UDP sockets' own mark

	raw4, raw6 int // raw sockets; raw6 is -1 on a host without IPv6
	again4     int // the same without the credential: what they send is judged
	again6     int

	port4, port6 *udpSocket // UDP port 4500
	ike4, ike6   *udpSocket // UDP port 500

	mu         sync.Mutex // the probes are connected and asked in one go
	udp4, udp6 int        // for source address selection; never sent on
}

func openInjector(mark uint32, c credential, a *awake) (*injector, error) {
	own, err := portMark()
	if err != nil {
		return nil, err
	}
	i := &injector{sends: c, mark: mark, own: own, raw4: -1, raw6: -1, again4: -1, again6: -1, udp4: -1, udp6: -1}
	if err = i.open(); err == nil {
		err = c.with(func() error { return i.openOurs(a) })
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("socket for injected packets: %w", privileged(err)), i.close())
	}
	return i, nil
}

// openOurs opens the sockets whose packets the output chain lets pass.
func (i *injector) openOurs(a *awake) (err error) {
	if i.raw4, err = rawSocket(unix.AF_INET, i.mark); err != nil {
		return err
	}
	if i.raw6, err = rawSocket6(i.mark); err != nil {
		return err
	}
	for _, s := range []struct {
		at   **udpSocket
		v6   bool
		port uint16
	}{{&i.port4, false, portNAT}, {&i.port6, true, portNAT}, {&i.ike4, false, portIKE}, {&i.ike6, true, portIKE}} {
		if *s.at, err = openUDPSocket(s.v6, s.port, i.mark, i.own, a); err != nil {
			return err
		}
	}
	return nil
}

// open opens the others.
func (i *injector) open() (err error) {
	if i.again4, err = rawSocket(unix.AF_INET, 0); err != nil {
		return err
	}
	// IPPROTO_RAW already says that the header is included (ip(7)).
	if i.udp4, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	if i.again6, err = rawSocket6(0); err != nil || i.again6 < 0 {
		return err
	}
	i.udp6, err = unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	return err
}

// rawSocket6 is -1 on a host without IPv6.
func rawSocket6(mark uint32) (int, error) {
	fd, err := rawSocket(unix.AF_INET6, mark)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return -1, nil
	}
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_HDRINCL, 1); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func rawSocket(family int, mark uint32) (int, error) {
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark)); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// send hands one packet to the routing code. link is the interface that a
// link-local destination lies on. A packet to an address of this host goes
// over the loopback interface and so reaches the local program.
func (i *injector) send(b []byte, to netip.Addr, link uint32) error {
	if to.Is4() {
		return unix.Sendto(i.raw4, b, 0, &unix.SockaddrInet4{Addr: to.As4()})
	}
	if i.raw6 < 0 {
		return unix.EAFNOSUPPORT
	}
	return unix.Sendto(i.raw6, b, 0, &unix.SockaddrInet6{Addr: to.As16(), ZoneId: zone(to, link)})
}

// Again sends a packet of this host that the Handler had held back, with its
// checksums filled in: it meets the output chain, and the Handler, like any
// other. So connection tracking sees the flow begin with it.
func (f *Firewall) Again(b []byte) error {
	to, ok := destination(b)
	switch {
	case !ok:
		return errors.New("no IP datagram")
	case to.IsLinkLocalUnicast():
		return unix.EADDRNOTAVAIL // by which interface, the packet does not say
	case to.Is4():
		return unix.Sendto(f.inject.again4, b, 0, &unix.SockaddrInet4{Addr: to.As4()})
	case f.inject.again6 < 0:
		return unix.EAFNOSUPPORT
	}
	return unix.Sendto(f.inject.again6, b, 0, &unix.SockaddrInet6{Addr: to.As16()})
}

// sourceFor gives the address that this host would use towards a peer; the
// zero Addr if it knows no way there.
func (i *injector) sourceFor(peer netip.Addr, link uint32) netip.Addr {
	i.mu.Lock()
	defer i.mu.Unlock()
	fd := i.ask(peer, link)
	if fd < 0 {
		return netip.Addr{}
	}
	local, err := unix.Getsockname(fd)
	if err != nil {
		return netip.Addr{}
	}
	switch local := local.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrFrom4(local.Addr)
	case *unix.SockaddrInet6:
		return netip.AddrFrom16(local.Addr)
	}
	return netip.Addr{}
}

// mtuTo gives the MTU of the route to a peer, in bytes; 0 if it is not known.
func (i *injector) mtuTo(peer netip.Addr, link uint32) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	fd, level, option := i.ask(peer, link), unix.IPPROTO_IPV6, unix.IPV6_MTU
	if peer.Is4() {
		level, option = unix.IPPROTO_IP, unix.IP_MTU
	}
	if fd < 0 {
		return 0
	}
	mtu, err := unix.GetsockoptInt(fd, level, option)
	if err != nil {
		return 0
	}
	return mtu
}

// ask connects one of the probes to a peer and gives it; -1 without a way
// there. A probe that was connected before would keep the address that it had
// then, so it is let go first (connect(2), AF_UNSPEC). i.mu is held.
func (i *injector) ask(peer netip.Addr, link uint32) (fd int) {
	fd = i.udp6
	var sa unix.Sockaddr = &unix.SockaddrInet6{Port: 9, Addr: peer.As16(), ZoneId: zone(peer, link)}
	if peer.Is4() {
		fd, sa = i.udp4, &unix.SockaddrInet4{Port: 9, Addr: peer.As4()}
	}
	if fd < 0 {
		return -1
	}
	nobody := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	_, _, _ = unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&nobody)), unsafe.Sizeof(nobody))
	if unix.Connect(fd, sa) != nil {
		return -1
	}
	return fd
}

func zone(a netip.Addr, link uint32) uint32 {
	if a.IsLinkLocalUnicast() {
		return link
	}
	return 0
}

// ports are the UDP sockets; nil ones where opening them failed.
func (i *injector) ports() []*udpSocket { return []*udpSocket{i.port4, i.port6, i.ike4, i.ike6} }

func (i *injector) close() error {
	var errs []error
	for _, fd := range []int{i.raw4, i.raw6, i.again4, i.again6, i.udp4, i.udp6} {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
		}
	}
	for _, s := range i.ports() {
		if s != nil {
			errs = append(errs, s.close())
		}
	}
	return errors.Join(errs...)
}

// rateLimit is a token bucket without a lock, in the form of a virtual clock
// that each token moves on by its share of a second (GCRA).
type rateLimit struct {
	next  atomic.Int64 // when the bucket is full again, on the Firewall's clock
	each  int64        // nanoseconds for one token
	burst int64        // nanoseconds for all that fit
}

// rejectBurst is how many answers may go out at once; Linux allows its own
// ICMP errors the same (icmp_msgs_burst).
const rejectBurst = 50

func newRateLimit(perSecond int) *rateLimit {
	each := int64(1e9) / int64(perSecond)
	return &rateLimit{each: each, burst: each * rejectBurst}
}

// take reports whether there is a token, and takes it.
func (l *rateLimit) take(now int64) bool {
	for {
		next := l.next.Load()
		at := max(next, now) + l.each
		if at > now+l.burst {
			return false
		}
		if l.next.CompareAndSwap(next, at) {
			return true
		}
	}
}
