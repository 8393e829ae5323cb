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

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// linkNames turns interface indexes into names and MTUs. Reading takes no lock; a
// subscription keeps the table fresh, and an index it does not hold is asked for.
type linkNames struct {
	names atomic.Pointer[map[uint32]link]

	mu     sync.Mutex // whoever changes names or asks
	query  *netlink.Conn
	events *netlink.Conn
	done   chan struct{}
}

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
	l := &linkNames{query: query, events: events, done: make(chan struct{})}
	l.names.Store(new(map[uint32]link))
	l.ask(0)
	go l.follow()
	return l, nil
}

func (l *linkNames) close() error {
	err := l.events.Close()
	<-l.done
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(err, l.query.Close())
}

// link gives an interface, the zero value for index 0 and for one that is gone.
func (l *linkNames) link(index uint32) link {
	if index == 0 {
		return link{}
	}
	if known, ok := (*l.names.Load())[index]; ok {
		return known
	}
	return l.ask(index)
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

// follow listens to the kernel's news of interfaces.
func (l *linkNames) follow() {
	defer close(l.done)
	for {
		msgs, err := l.events.Receive()
		switch {
		case isClosed(err):
			return
		case err != nil:
			// News was lost (ENOBUFS): forget everything, names are asked
			// for again.
			l.mu.Lock()
			l.names.Store(new(map[uint32]link))
			l.mu.Unlock()
		default:
			l.mu.Lock()
			l.learn(msgs, 0)
			l.mu.Unlock()
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
