package nfq

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// tunnel is the device by which packets come in that a verdict cannot replace
// the sealed one by: what an SA carried in a datagram of the other IP family,
// and what came by the UDP socket. Nothing is read from it, and no route leads there; what is sent
// there all the same is lost, never seen.
//
// The device exists from the first policy that protects until the end of the
// daemon.
type tunnel struct {
	name string

	mu   sync.Mutex
	file *os.File      // from the beginning, so that it stays in its network namespace; nil: see lack
	lack error         // why there is none, said when it is needed
	fd   int           // its descriptor
	ctl  int           // a socket of the namespace, for ioctl
	conn *netlink.Conn // the same, for addresses
	made bool

	// See detour.
	way     sync.Mutex
	detours map[netip.Addr]detour
	rules   map[ipRule]bool // in force

	back reversePath
}

// Device is the device by which opened packets come in, of a Firewall with the
// default table.
const Device = DefaultTable + "0"

func deviceName(table string) string { return table[:min(len(table), unix.IFNAMSIZ-2)] + "0" }

// openTunnel gets ready to make it. ipv6 says that the host has that.
func openTunnel(table string, m marks, ipv6 bool) (*tunnel, error) {
	t := &tunnel{name: deviceName(table), ctl: -1, detours: map[netip.Addr]detour{}, rules: map[ipRule]bool{}, back: reversePath{marks: m, ipv6: ipv6}}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, os.ErrNotExist):
		t.lack = errors.New("there is no /dev/net/tun, which protected packets need: `modprobe tun` (CONFIG_TUN) makes it; a container has to be given it")
		return t, nil
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		t.lack = errors.New("this kernel has no TUN devices (CONFIG_TUN, module tun), which protected packets need")
		return t, nil
	}
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", privileged(err))
	}
	t.fd, t.file = fd, os.NewFile(uintptr(fd), "/dev/net/tun")
	if t.ctl, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return nil, errors.Join(err, t.close())
	}
	if t.conn, err = netlink.Dial(unix.NETLINK_ROUTE, nil); err != nil {
		return nil, errors.Join(fmt.Errorf("route netlink socket: %w", err), t.close())
	}
	t.clearRules()
	if t.back.news, err = netlink.Dial(unix.NETLINK_ROUTE, nil); err != nil {
		return nil, errors.Join(fmt.Errorf("route netlink socket: %w", err), t.close())
	}
	return t, nil
}

// up makes the device if it is not there.
func (t *tunnel) up() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.made {
		return nil
	}
	if t.file == nil {
		return t.lack
	}
	ifr, err := unix.NewIfreq(t.name)
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	raw, err := t.file.SyscallConn()
	if err != nil {
		return err
	}
	if e := raw.Control(func(fd uintptr) { err = unix.IoctlIfreq(int(fd), unix.TUNSETIFF, ifr) }); e != nil || err != nil {
		return fmt.Errorf("device %s: %w", t.name, privileged(errors.Join(e, err)))
	}
	// The device must not speak by itself: no addresses, so no IPv6 router or
	// listener messages. A namespace without IPv6 has no such setting.
	_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+t.name+"/addr_gen_mode", []byte("1"), 0)
	// Packets come in by another device than their answers go out: that must
	// not be held against them (RFC 3704 section 2.4, "loose"). A device
	// without an address the kernel trusts in no mode.
	_ = os.WriteFile("/proc/sys/net/ipv4/conf/"+t.name+"/rp_filter", []byte("2"), 0)
	if err := unix.IoctlIfreq(t.ctl, unix.SIOCGIFFLAGS, ifr); err != nil {
		return fmt.Errorf("device %s: %w", t.name, err)
	}
	flags := ifr.Uint16()
	if err := unix.IoctlIfreq(t.ctl, unix.SIOCGIFINDEX, ifr); err != nil {
		return fmt.Errorf("device %s: %w", t.name, err)
	}
	index := ifr.Uint32()
	if err := t.address(index); err != nil {
		return fmt.Errorf("device %s: address: %w", t.name, err)
	}
	ifr.SetUint16(flags | unix.IFF_UP)
	if err := unix.IoctlIfreq(t.ctl, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("device %s: %w", t.name, err)
	}
	t.made = true
	return nil
}

// receive hands a packet to the kernel as one that has come in.
func (t *tunnel) receive(pkt []byte) error {
	var header [sizeofVnetHeader]byte
	_, err := unix.Writev(int(t.fd), [][]byte{header[:], pkt})
	return err
}

// Deliver hands a packet that came out of an SA to the kernel, as one that has
// come in by the device of protected packets. It has been judged: no Handler is
// asked any more. It needs a Config that says Protect.
func (f *Firewall) Deliver(b []byte) error {
	if to, ok := destination(b); !ok || to.IsLinkLocalUnicast() {
		return unix.EADDRNOTAVAIL // a link-local address is good on its own link only
	}
	return f.tunnel.receive(b)
}

// writev is receive for a packet in pieces, the first of which is a struct
// virtio_net_hdr.
func (t *tunnel) writev(iov []unix.Iovec) error {
	if _, _, errno := unix.RawSyscall(unix.SYS_WRITEV, uintptr(t.fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov))); errno != 0 {
		return errno
	}
	return nil
}

func (t *tunnel) close() error {
	errs := []error{t.back.close()}
	t.way.Lock()
	clear(t.detours)
	if t.conn != nil {
		errs = append(errs, t.syncRules())
		for _, v6 := range t.back.families() {
			errs = append(errs, t.noWayBack(v6))
		}
	}
	t.way.Unlock()
	if t.file != nil {
		errs = append(errs, t.file.Close())
	}
	if t.ctl >= 0 {
		errs = append(errs, unix.Close(t.ctl))
	}
	if t.conn != nil {
		errs = append(errs, t.conn.Close())
	}
	return errors.Join(errs...)
}

// address gives the device the IPv4 dummy address (RFC 7600 section 4.8), which
// nobody sends to: valid on this host, and never chosen as a source.
func (t *tunnel) address(index uint32) error {
	dummy := []byte{192, 0, 0, 8}
	attrs, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.IFA_LOCAL, Data: dummy}, {Type: unix.IFA_ADDRESS, Data: dummy},
	})
	if err != nil {
		return err
	}
	body := []byte{unix.AF_INET, 32, 0, unix.RT_SCOPE_HOST} // struct ifaddrmsg
	_, err = t.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_NEWADDR, Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Replace},
		Data:   append(binary.NativeEndian.AppendUint32(body, index), attrs...),
	})
	return err
}
