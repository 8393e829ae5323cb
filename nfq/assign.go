package nfq

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Assign gives this host an address that a peer has lent it, on the device of
// protected packets, and sends what goes to the networks by that device, from
// that address: the engine seals it on its way there, and the kernel finds the
// sealed packet another way. Networks that the peer itself is in, as everything,
// are reached by a detour, which leads what goes to the peer past them. It needs
// a Config that says Protect.
func (f *Firewall) Assign(a netip.Addr, networks []netip.Prefix, peer netip.Addr) error {
	if err := f.tunnel.assign(a, unix.RTM_NEWADDR); err != nil {
		return fmt.Errorf("address %s on device %s: %w", a, f.tunnel.name, err)
	}
	var around []netip.Prefix
	for _, n := range networks {
		switch {
		case n.Addr().Is4() != a.Is4():
		case n.Contains(peer) || n.Bits() == 0:
			around = append(around, n.Masked())
		default:
			if err := f.tunnel.route(unix.RTM_NEWROUTE, a, n.Masked(), unix.RT_TABLE_MAIN); err != nil {
				return fmt.Errorf("route to %s by device %s: %w", n, f.tunnel.name, err)
			}
		}
	}
	if len(around) == 0 {
		return nil
	}
	if err := f.tunnel.detour(a, detour{peer, around}); err != nil {
		return fmt.Errorf("routes to %s by device %s: %w", around[0], f.tunnel.name, err)
	}
	return nil
}

// Unassign takes the address back, and with it the routes from it.
func (f *Firewall) Unassign(a netip.Addr) error {
	way := f.tunnel.noDetour(a)
	if err := f.tunnel.assign(a, unix.RTM_DELADDR); err != nil {
		return fmt.Errorf("address %s on device %s: %w", a, f.tunnel.name, errors.Join(err, way))
	}
	return way
}

// PeerMoved keeps the way to the peer that has lent an address, which is
// somewhere else now.
func (f *Firewall) PeerMoved(a, peer netip.Addr) error { return f.tunnel.movedDetour(a, peer) }

// assign adds or removes an address.
func (t *tunnel) assign(a netip.Addr, kind uint16) error {
	index, err := t.index()
	if err != nil {
		return err
	}
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.IFA_LOCAL, Data: a.AsSlice()}, {Type: unix.IFA_ADDRESS, Data: a.AsSlice()},
	})
	if err != nil {
		return err
	}
	// struct ifaddrmsg: family, prefix length, flags, scope, index
	body := []byte{family(a), byte(a.BitLen()), unix.IFA_F_NODAD, unix.RT_SCOPE_UNIVERSE}
	h := netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | netlink.Acknowledge}
	if kind == unix.RTM_NEWADDR {
		h.Flags |= netlink.Create | netlink.Replace
	}
	_, err = t.conn.Execute(netlink.Message{Header: h, Data: append(binary.NativeEndian.AppendUint32(body, index), attrs...)})
	return err
}

// route sends what goes to a network by the device, or does so no more; from is the
// source for it, the zero Addr: any.
func (t *tunnel) route(kind uint16, from netip.Addr, to netip.Prefix, table uint32) error {
	index, err := t.index()
	if err != nil {
		return err
	}
	list := []netlink.Attribute{
		{Type: unix.RTA_DST, Data: to.Addr().AsSlice()},
		{Type: unix.RTA_OIF, Data: binary.NativeEndian.AppendUint32(nil, index)},
		{Type: unix.RTA_TABLE, Data: binary.NativeEndian.AppendUint32(nil, table)},
	}
	if from.IsValid() {
		list = append(list, netlink.Attribute{Type: unix.RTA_PREFSRC, Data: from.AsSlice()})
	}
	attrs, err := netlink.MarshalAttributes(list)
	if err != nil {
		return err
	}
	// struct rtmsg: family, lengths of destination and source, TOS, table,
	// protocol, scope, type, flags
	body := []byte{family(to.Addr()), byte(to.Bits()), 0, 0, unix.RT_TABLE_UNSPEC, unix.RTPROT_STATIC, unix.RT_SCOPE_LINK, unix.RTN_UNICAST, 0, 0, 0, 0}
	h := netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | netlink.Acknowledge}
	if kind == unix.RTM_NEWROUTE {
		h.Flags |= netlink.Create | netlink.Replace
	}
	_, err = t.conn.Execute(netlink.Message{Header: h, Data: append(body, attrs...)})
	return err
}

// index is that of the device.
func (t *tunnel) index() (uint32, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.made {
		return 0, os.ErrNotExist
	}
	ifr, err := unix.NewIfreq(t.name)
	if err != nil {
		return 0, err
	}
	if err := unix.IoctlIfreq(t.ctl, unix.SIOCGIFINDEX, ifr); err != nil {
		return 0, err
	}
	return ifr.Uint32(), nil
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
