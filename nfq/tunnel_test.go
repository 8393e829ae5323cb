package nfq

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What is missing for the device of opened packets is told by its name: the
// device node and the kernel's driver are two things.
func TestNoTUN(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		make func() error
		want string
	}{
		{"no node", func() error { return nil }, "there is no /dev/net/tun, which protected packets need: `modprobe tun` (CONFIG_TUN)"},
		{"no driver", func() error { return unix.Mknod("/dev/net/tun", unix.S_IFCHR, int(unix.Mkdev(10, 253))) },
			"this kernel has no TUN devices (CONFIG_TUN, module tun)"},
	} {
		h := newHost(t)
		h.try(func() error { // on a thread that no one has after it
			for _, step := range []func() error{
				func() error { return unix.Unshare(unix.CLONE_NEWNS) },
				func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
				func() error { return unix.Mount("none", "/dev/net", "tmpfs", 0, "") },
				tc.make,
			} {
				if err := step(); err != nil {
					return err
				}
			}
			tun, err := openTunnel("ipfw", marks(DefaultMask), true)
			if err != nil {
				return err
			}
			if err = tun.up(); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
			}
			return tun.close()
		})
	}
}
