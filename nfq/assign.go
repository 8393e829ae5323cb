package nfq

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Assign gives this host an address that a peer has lent it, on the device of
// protected packets, and sends what goes to the networks by that device, from
// that address: the engine seals it on its way there, and the kernel finds the
// sealed packet another way. It needs a Config that says Protect.
func (f *Firewall) Assign(a netip.Addr, networks []netip.Prefix) error {
	if err := f.tunnel.assign(a, unix.RTM_NEWADDR); err != nil {
		return fmt.Errorf("address %s on device %s: %w", a, f.tunnel.name, err)
	}
	for _, n := range networks {
		if n.Addr().Is4() != a.Is4() {
			continue
		}
		if err := f.tunnel.route(a, n.Masked()); err != nil {
			return fmt.Errorf("route to %s by device %s: %w", n, f.tunnel.name, err)
		}
	}
	return nil
}

// Unassign takes the address back, and with it, by the kernel's own doing, the
// routes from it.
func (f *Firewall) Unassign(a netip.Addr) error {
	if err := f.tunnel.assign(a, unix.RTM_DELADDR); err != nil {
		return fmt.Errorf("address %s on device %s: %w", a, f.tunnel.name, err)
	}
	return nil
}

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

// route sends what goes to a network by the device.
func (t *tunnel) route(from netip.Addr, to netip.Prefix) error {
	index, err := t.index()
	if err != nil {
		return err
	}
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.RTA_DST, Data: to.Addr().AsSlice()},
		{Type: unix.RTA_PREFSRC, Data: from.AsSlice()},
		{Type: unix.RTA_OIF, Data: binary.NativeEndian.AppendUint32(nil, index)},
	})
	if err != nil {
		return err
	}
	// struct rtmsg: family, lengths of destination and source, TOS, table,
	// protocol, scope, type, flags
	body := []byte{family(from), byte(to.Bits()), 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, unix.RT_SCOPE_LINK, unix.RTN_UNICAST, 0, 0, 0, 0}
	_, err = t.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_NEWROUTE, Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Replace},
		Data:   append(body, attrs...),
	})
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
