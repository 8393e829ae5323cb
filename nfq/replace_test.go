package nfq

import (
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// What may take the place of what, by the rules of Linux 7.2.
func TestMayReplace(t *testing.T) {
	t.Parallel()
	v4 := func(change func(b []byte)) []byte {
		b := append([]byte{0x45, 0, 0, 24, 0, 1, 0, 0, 64, packet.TCP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2}, 1, 2, 3, 4)
		change(b)
		return b
	}
	v6 := func(next byte) []byte {
		b := make([]byte, 48)
		b[0], b[5], b[6] = 0x60, 8, next
		return b
	}
	options := func(o byte) []byte {
		b := v4(func(b []byte) { b[0] = 0x46 })
		b[20] = o
		return b
	}
	plain := v4(func([]byte) {})
	for _, row := range []struct {
		what     string
		was, now []byte
		want     bool
	}{
		{"IPv4, another protocol", plain, v4(func(b []byte) { b[9] = packet.ESP }), true},
		{"IPv4, other addresses", plain, v4(func(b []byte) { b[12], b[16] = 11, 11 }), true},
		{"IPv4, DF set", plain, v4(func(b []byte) { b[6] = 0x40 }), true},
		{"IPv4, longer", plain, append(v4(func(b []byte) { b[3] = 124 }), make([]byte, 100)...), true},
		{"IPv4, more fragments", plain, v4(func(b []byte) { b[6] = 0x20 }), false},
		{"IPv4, a fragment", plain, v4(func(b []byte) { b[7] = 1 }), false},
		{"IPv4, options of the first gone", options(1), plain, false},
		{"IPv4, options are new", plain, options(1), false},
		{"IPv4, the same options", options(1), options(1), true},
		{"IPv4, other options", options(1), options(0), false},
		{"IPv4 by IPv6", plain, v6(packet.TCP), false},
		{"IPv6 by IPv4", v6(packet.TCP), plain, false},
		{"IPv6, sealed", v6(packet.TCP), v6(packet.ESP), false},
		{"IPv6, opened", v6(packet.ESP), v6(packet.UDP), false},
		{"IPv6, what it carries", v6(packet.SCTP), v6(packet.SCTP), true},
		{"IPv6, extension headers", v6(packet.AH), v6(packet.AH), false},
		{"too long for a verdict", plain, make([]byte, maxPayload+1), false},
	} {
		w := &worker{fw: &Firewall{can: abilities{replace: replaceByRules}}}
		if got := w.replaceable(row.was, row.now); got != row.want {
			t.Errorf("%s: %v, want %v", row.what, got, row.want)
		}
		w.fw.can.replace = replaceAnything
		if got, want := w.replaceable(row.was, row.now), len(row.now) <= maxPayload && row.was[0]>>4 == row.now[0]>>4; got != want {
			t.Errorf("%s, before 7.2: %v, want %v", row.what, got, want)
		}
		w.fw.can.replace = replaceNothing
		if w.replaceable(row.was, row.now) {
			t.Errorf("%s is replaced where nothing may be", row.what)
		}
	}
	for release, want := range map[string]bool{"6.1.0-50-amd64": true, "6.18.5": true, "7.1.9-rc1": true, "7.2.12+deb14-amd64": false, "7.10.1": false, "10.0": false, "": false} {
		if got := canReplace(release) == replaceAnything; got != want {
			t.Errorf("Linux %q replaces anything: %v, want %v", release, got, want)
		}
	}
}

// Addresses of a link alone are protected too, up to Linux 7.1.
func TestProtectOnLink(t *testing.T) {
	t.Parallel()
	var major, minor int
	if _, err := fmt.Sscanf(kernelRelease(), "%d.%d", &major, &minor); err != nil || major > 7 || major == 7 && minor > 1 {
		t.Skip("this kernel has not verdicts that open IPv6 packets (up to Linux 7.1)")
	}
	for _, proto := range []esp.Protocol{esp.ESP, esp.AH} {
		t.Run(fmt.Sprint(proto), func(t *testing.T) {
			t.Parallel()
			a, b := pair(t)
			ends := []netip.Addr{addrOf("fe80::a"), addrOf("fe80::b")}
			for i, h := range []*testHost{a, b} {
				h.try(func() error {
					link, err := netlink.LinkByName("eth0")
					if err != nil {
						return err
					}
					return netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: ends[i].AsSlice(), Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD})
				})
			}
			s := sealing{proto, esp.Transport, true, false}
			a.protect(Config{}, sealer(t, s, ends[0], ends[1], ends[:1], ends[1:], 0x1001, 0x1002, false))
			fw := b.protect(Config{}, sealer(t, s, ends[1], ends[0], ends[1:], ends[:1], 0x1002, 0x1001, false))
			if err := a.ping(ends[1].WithZone("eth0"), 1400); err != nil {
				t.Error(err)
			}
			if st := fw.Stats(); st.Sealed == 0 || st.Opened == 0 {
				t.Errorf("counters: %+v", st)
			}
		})
	}
}
