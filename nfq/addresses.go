package nfq

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// addresses are the host's own addresses, and the networks that they are in.
// Reading takes no lock; a subscription keeps them fresh.
type addresses struct {
	own    atomic.Pointer[ownAddresses]
	query  *netlink.Conn
	events *netlink.Conn
	done   chan struct{}

	mu   sync.Mutex
	hear func(own []netip.Addr) // nil: nobody
}

// ownAddresses are the addresses at one moment. They never change.
type ownAddresses struct {
	set map[netip.Addr]struct{} // those at which packets end, broadcast addresses too
	own []netip.Addr            // ... without those
	// networks are by interface index, each with an address in it.
	networks map[uint32][]netip.Prefix
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
	a.own.Store(new(ownAddresses))
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
	_, ok := a.own.Load().set[addr]
	return ok
}

// networks gives the networks of an interface, each with an address in it: this
// host's, or on a point-to-point link the far end's.
func (a *addresses) networks(index uint32) []netip.Prefix { return a.own.Load().networks[index] }

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
	now := &ownAddresses{set: make(map[netip.Addr]struct{}, len(msgs)), networks: make(map[uint32][]netip.Prefix)}
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
		now.set[local] = struct{}{}
		now.own = append(now.own, local)
		if b, ok := own[unix.IFA_BROADCAST]; ok {
			now.set[b] = struct{}{}
		}
		index := binary.NativeEndian.Uint32(m.Data[4:]) // struct ifaddrmsg: family, prefix length, flags, scope, index
		network := netip.PrefixFrom(own[unix.IFA_ADDRESS], int(m.Data[1]))
		now.networks[index] = append(now.networks[index], network)
		if b, ok := lastOf(network); ok { // which is for everybody, set or not
			now.set[b] = struct{}{}
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.own.Store(now)
	if a.hear != nil {
		a.hear(now.own)
	}
	return nil
}

// tell has somebody hear of the host's addresses: now, and whenever they change.
// Who is told with nil hears no more.
func (a *addresses) tell(hear func(own []netip.Addr)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.hear = hear; hear != nil {
		hear(a.own.Load().own)
	}
}

// lastOf gives the broadcast address of an IPv4 network that has one.
func lastOf(n netip.Prefix) (netip.Addr, bool) {
	if !n.Addr().Is4() || n.Bits() > 30 {
		return netip.Addr{}, false
	}
	b := n.Addr().As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])|^uint32(0)>>n.Bits())
	return netip.AddrFrom4(b), true
}
