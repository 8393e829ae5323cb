package nfq

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// tunnel is the device by which packets come in that an SA carried in a datagram
// of the other IP family: a verdict can replace a packet by one of its own
// family only. Nothing is read from it, and no route leads there; what is sent
// there all the same is lost, never seen.
//
// The device exists from the first policy that protects until the end of the
// daemon.
type tunnel struct {
	name string

	mu   sync.Mutex
	file *os.File // from the beginning, so that it stays in its network namespace; nil without TUN
	ctl  int      // a socket of the namespace, for ioctl
	made bool
}

func openTunnel(table string) (*tunnel, error) {
	t := &tunnel{name: table[:min(len(table), unix.IFNAMSIZ-2)] + "0", ctl: -1}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return t, nil // said when it is needed
	}
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", privileged(err))
	}
	t.file = os.NewFile(uintptr(fd), "/dev/net/tun")
	if t.ctl, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return nil, errors.Join(err, t.close())
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
		return errors.New("this kernel has no TUN devices (CONFIG_TUN), which protected packets need")
	}
	ifr, err := unix.NewIfreq(t.name)
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
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
	if err := unix.IoctlIfreq(t.ctl, unix.SIOCGIFFLAGS, ifr); err != nil {
		return fmt.Errorf("device %s: %w", t.name, err)
	}
	ifr.SetUint16(ifr.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(t.ctl, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("device %s: %w", t.name, err)
	}
	t.made = true
	return nil
}

// receive hands a packet to the kernel as one that has come in.
func (t *tunnel) receive(pkt []byte) error {
	_, err := t.file.Write(pkt)
	return err
}

func (t *tunnel) close() error {
	var errs []error
	if t.file != nil {
		errs = append(errs, t.file.Close())
	}
	if t.ctl >= 0 {
		errs = append(errs, unix.Close(t.ctl))
	}
	return errors.Join(errs...)
}
