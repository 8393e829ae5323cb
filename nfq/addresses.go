package nfq

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// addresses are the host's own addresses. Reading takes no lock; a
// subscription keeps them fresh.
type addresses struct {
	set    atomic.Pointer[map[netip.Addr]struct{}]
	query  *netlink.Conn
	events *netlink.Conn
	done   chan struct{}
}

func openAddresses() (*addresses, error) {
	events, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Groups: unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR})
	if err != nil {
		return nil, fmt.Errorf("route netlink socket: %w", err)
	}
	query, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("route netlink socket: %w", err), events.Close())
	}
	a := &addresses{query: query, events: events, done: make(chan struct{})}
	a.set.Store(new(map[netip.Addr]struct{}))
	if err := a.read(); err != nil {
		return nil, errors.Join(fmt.Errorf("addresses of this host: %w", err), events.Close(), query.Close())
	}
	go a.follow()
	return a, nil
}

func (a *addresses) close() error {
	err := a.events.Close()
	<-a.done
	return errors.Join(err, a.query.Close())
}

// isLocal says whether packets to an address end at this host: its own
// addresses, the broadcast addresses of its networks, loopback.
func (a *addresses) isLocal(addr netip.Addr) bool {
	if addr.IsLoopback() || addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return true
	}
	_, ok := (*a.set.Load())[addr]
	return ok
}

// follow reads the addresses anew whenever the kernel has news of them, or has
// lost some.
func (a *addresses) follow() {
	defer close(a.done)
	for {
		_, err := a.events.Receive()
		if isClosed(err) {
			return
		}
		_ = a.read() // what was known before is better than nothing
	}
}

// read asks the kernel for all addresses.
func (a *addresses) read() error {
	msgs, err := a.query.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETADDR, Flags: netlink.Request | netlink.Dump},
		Data:   make([]byte, unix.SizeofIfAddrmsg),
	})
	if err != nil {
		return err
	}
	set := make(map[netip.Addr]struct{}, len(msgs))
	for _, m := range msgs {
		if m.Header.Type != unix.RTM_NEWADDR || len(m.Data) < unix.SizeofIfAddrmsg {
			continue
		}
		attrs, err := netlink.UnmarshalAttributes(m.Data[unix.SizeofIfAddrmsg:])
		if err != nil {
			return err
		}
		own := map[uint16]netip.Addr{}
		for _, at := range attrs {
			if addr, ok := netip.AddrFromSlice(at.Data); ok {
				own[at.Type] = addr
			}
		}
		// On a point-to-point link IFA_ADDRESS is the far end (rtnetlink(7)).
		local, ok := own[unix.IFA_LOCAL]
		if !ok {
			local = own[unix.IFA_ADDRESS]
		}
		set[local] = struct{}{}
		if b, ok := own[unix.IFA_BROADCAST]; ok {
			set[b] = struct{}{}
		}
	}
	a.set.Store(&set)
	return nil
}
