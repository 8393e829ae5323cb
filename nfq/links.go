package nfq

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// linkNames turns interface indexes into names and MTUs. Reading takes no lock; a
// subscription keeps the table fresh, and an index it does not hold is asked for.
//
// The kernel has put the news of an interface in the socket before a packet can
// come by its new name. Where policy names interfaces, whoever asks for a name
// looks whether there is news first, so that no packet is judged by an old one.
type linkNames struct {
	names  atomic.Pointer[map[uint32]link]
	strict atomic.Bool // policy names interfaces
	busy   atomic.Bool // news is read and not learnt yet

	mu     sync.Mutex // whoever changes names, asks, or reads news
	query  *netlink.Conn
	events *netlink.Conn
	raw    syscall.RawConn // of events
	look   int             // a file descriptor of events of its own, to look for news
	buf    []byte
	done   chan struct{}
}

// linkBuffer is room for one datagram of news; the kernel's are far smaller.
const linkBuffer = 64 << 10

// link is an interface. The zero value is one that there is not.
type link struct {
	name string
	mtu  int // bytes
}

func openLinkNames() (*linkNames, error) {
	events, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: unix.RTMGRP_LINK})
	if err != nil {
		return nil, fmt.Errorf("route netlink socket: %w", err)
	}
	query, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("route netlink socket: %w", err), events.Close())
	}
	l := &linkNames{query: query, events: events, look: -1, buf: make([]byte, linkBuffer), done: make(chan struct{})}
	l.names.Store(new(map[uint32]link))
	if l.raw, err = events.SyscallConn(); err == nil {
		if e := l.raw.Control(func(fd uintptr) { l.look, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); e != nil {
			err = e
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("route netlink socket: %w", err), events.Close(), query.Close())
	}
	l.ask(0)
	go l.follow()
	return l, nil
}

func (l *linkNames) close() error {
	err := l.events.Close()
	<-l.done
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(err, unix.Close(l.look), l.query.Close())
}

// link gives an interface, the zero value for index 0 and for one that is gone.
func (l *linkNames) link(index uint32) link {
	if index == 0 {
		return link{}
	}
	if l.strict.Load() && l.news() {
		l.read(l.look)
	}
	if known, ok := (*l.names.Load())[index]; ok {
		return known
	}
	return l.ask(index)
}

// index finds an interface by its name. It goes through all of them, so it is for
// few packets.
func (l *linkNames) index(name string) (index uint32, ok bool) {
	if name == "" {
		return 0, false
	}
	for i, known := range *l.names.Load() {
		if known.name == name {
			return i, true
		}
	}
	return 0, false
}

// ask asks the kernel for one interface, or with index 0 for all of them, and
// remembers the answer; also that there is none, until an event says more.
func (l *linkNames) ask(index uint32) link {
	l.mu.Lock()
	defer l.mu.Unlock()
	req := netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request},
		Data:   make([]byte, unix.SizeofIfInfomsg),
	}
	binary.NativeEndian.PutUint32(req.Data[4:], index)
	if index == 0 {
		req.Header.Flags |= netlink.Dump
	}
	msgs, err := l.query.Execute(req)
	if err != nil {
		msgs = nil
	}
	l.learn(msgs, index)
	return (*l.names.Load())[index]
}

// news says that there is something to read, or that it is being read.
func (l *linkNames) news() bool {
	p := unix.PollFd{Fd: int32(l.look), Events: unix.POLLIN}
	var now unix.Timespec
	n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&p)), 1, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	return errno != 0 || n != 0 || l.busy.Load()
}

// follow listens to the kernel's news of interfaces until the socket is closed.
func (l *linkNames) follow() {
	defer close(l.done)
	_ = l.raw.Read(func(fd uintptr) bool { // which ends with the socket
		l.read(int(fd))
		return false // wait for more
	})
}

// read takes in all the news there is.
func (l *linkNames) read(fd int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy.Store(true)
	defer l.busy.Store(false)
	for {
		n, _, err := unix.Recvfrom(fd, l.buf, unix.MSG_DONTWAIT)
		switch {
		case err == unix.EINTR:
		case err == unix.ENOBUFS:
			// News was lost: forget everything, names are asked for again.
			l.names.Store(new(map[uint32]link))
		case err != nil:
			return
		default:
			var msgs []netlink.Message
			for rest := l.buf[:n]; ; {
				typ, body, after, ok := splitMessage(rest)
				if !ok {
					break
				}
				msgs = append(msgs, netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(typ)}, Data: body})
				rest = after
			}
			l.learn(msgs, 0)
		}
	}
}

// learn takes in answers and news; l.mu is held. asked, if not 0, is an
// interface that has no name unless msgs gives it one.
func (l *linkNames) learn(msgs []netlink.Message, asked uint32) {
	names := maps.Clone(*l.names.Load())
	if names == nil {
		names = make(map[uint32]link)
	}
	if asked != 0 {
		names[asked] = link{}
	}
	for _, m := range msgs {
		if len(m.Data) < unix.SizeofIfInfomsg || m.Data[0] == unix.AF_BRIDGE {
			continue
		}
		index := binary.NativeEndian.Uint32(m.Data[4:])
		switch m.Header.Type {
		case unix.RTM_DELLINK:
			delete(names, index)
		case unix.RTM_NEWLINK:
			attrs, err := netlink.UnmarshalAttributes(m.Data[unix.SizeofIfInfomsg:])
			if err != nil {
				continue
			}
			is := names[index]
			for _, a := range attrs {
				switch {
				case a.Type == unix.IFLA_IFNAME:
					is.name = cString(a.Data)
				case a.Type == unix.IFLA_MTU && len(a.Data) == 4:
					is.mtu = int(binary.NativeEndian.Uint32(a.Data))
				}
			}
			names[index] = is
		}
	}
	l.names.Store(&names)
}

// isClosed says that a socket was closed under its reader.
func isClosed(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) || errors.Is(err, unix.EBADF)
}

func cString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
