package nfq

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// net4 and net6 are the networks of the test's wires; the last number is the
// host's.
const (
	net4 = "10.9.%d.%d"
	net6 = "fd00:9:%d::%d"
)

// testHost is a network namespace without a name: it is gone when the test is.
type testHost struct {
	t  testing.TB
	ns netns.NsHandle
}

// newHost makes a namespace with its loopback up.
func newHost(t testing.TB) *testHost {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: kernel tests need root, for network namespaces and nftables")
	}
	h := &testHost{t: t, ns: netns.None()}
	errs := make(chan error)
	go func() { // this thread ends with the goroutine
		runtime.LockOSThread()
		var err error
		if h.ns, err = netns.New(); err == nil {
			var lo netlink.Link
			if lo, err = netlink.LinkByName("lo"); err == nil {
				err = netlink.LinkSetUp(lo)
			}
		}
		errs <- err
	}()
	if err := <-errs; err != nil {
		t.Fatalf("network namespace: %v", err)
	}
	t.Cleanup(func() { h.ns.Close() })
	return h
}

// do runs f on a thread that is in the namespace and in no other ever.
func (h *testHost) do(f func()) {
	h.t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := netns.Set(h.ns)
		if err == nil {
			f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		h.t.Fatal(err)
	}
}

// try is do for what may fail.
func (h *testHost) try(f func() error) {
	h.t.Helper()
	var err error
	h.do(func() { err = f() })
	if err != nil {
		h.t.Fatal(err)
	}
}

// wire joins two hosts: wire n, host a is .1, host b is .2; the interfaces
// are eth<n>.
func wire(a, b *testHost, n int) {
	a.t.Helper()
	name := fmt.Sprintf("eth%d", n)
	a.try(func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: name, MTU: 1500}, PeerName: name, PeerNamespace: netlink.NsFd(b.ns),
		})
	})
	for i, h := range []*testHost{a, b} {
		h.try(func() error {
			link, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			for _, s := range []string{fmt.Sprintf(net4, n, i+1) + "/24", fmt.Sprintf(net6, n, i+1) + "/64"} {
				addr, err := netlink.ParseAddr(s)
				if err != nil {
					return err
				}
				addr.Flags = 2 // IFA_F_NODAD
				if err := netlink.AddrAdd(link, addr); err != nil {
					return err
				}
			}
			return netlink.LinkSetUp(link)
		})
	}
	for i, h := range []*testHost{a, b} {
		h.do(func() { awaitIPv6(h.t, name, net.ParseIP(fmt.Sprintf(net6, n, i+1))) })
	}
	for i, h := range []*testHost{a, b} {
		h.do(func() {
			for _, far := range []netip.Addr{addr4(n, 2-i), addr6(n, 2-i)} {
				meet(h.t, far)
			}
		})
	}
}

// meet has the kernel find a neighbour. Where one is not found within three seconds,
// which in a guest of e2e/vm may pass without anything done, what waits for it is
// lost, and a test that sends it once waits in vain.
func meet(t testing.TB, far netip.Addr) {
	t.Helper()
	c, err := net.Dial("udp", netip.AddrPortFrom(far, 9).String())
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		_, _ = c.Write(nil) // refused as soon as it arrives
		if all, err := netlink.NeighList(0, int(family(far))); err == nil && slices.ContainsFunc(all, func(n netlink.Neigh) bool {
			return n.IP.Equal(far.AsSlice()) && n.State&(netlink.NUD_REACHABLE|netlink.NUD_PERMANENT) != 0
		}) {
			return
		}
	}
	t.Errorf("no neighbour %v", far)
}

// awaitIPv6 waits until a link that is up takes what is for its address and hears
// neighbour solicitations. The kernel does its part of both later, when it has
// seen the carrier; a first packet has but three solicitations.
func awaitIPv6(t testing.TB, name string, address net.IP) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Error(err)
		return
	}
	for _, want := range []struct {
		dst  *net.IPNet
		link int // 0: older kernels say loopback
	}{
		{&net.IPNet{IP: net.ParseIP("ff00::"), Mask: net.CIDRMask(8, 128)}, link.Attrs().Index},
		{&net.IPNet{IP: address, Mask: net.CIDRMask(128, 128)}, 0},
	} {
		filter := netlink.RT_FILTER_TABLE | netlink.RT_FILTER_DST
		if want.link != 0 {
			filter |= netlink.RT_FILTER_OIF
		}
		for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			routes, err := netlink.RouteListFiltered(netlink.FAMILY_V6,
				&netlink.Route{Table: unix.RT_TABLE_LOCAL, LinkIndex: want.link, Dst: want.dst}, filter)
			if err == nil && len(routes) > 0 {
				break
			}
			if err != nil || time.Now().After(deadline) {
				t.Errorf("%s has no route to %v: %v", name, want.dst, err)
				return
			}
		}
	}
}

// route sends a host's packets for wire n to the far end of wire via.
func route(h *testHost, n, via int, far int) {
	h.t.Helper()
	for _, f := range []struct {
		net  string
		bits int
	}{{net4, 24}, {net6, 64}} {
		dst := net.IPNet{IP: net.ParseIP(fmt.Sprintf(f.net, n, 0)), Mask: net.CIDRMask(f.bits, 128)}
		if f.bits == 24 {
			dst = net.IPNet{IP: dst.IP.To4(), Mask: net.CIDRMask(24, 32)}
		}
		gw := net.ParseIP(fmt.Sprintf(f.net, via, far))
		h.try(func() error { return netlink.RouteAdd(&netlink.Route{Dst: &dst, Gw: gw}) })
	}
}

// addr4 and addr6 are a host's addresses on wire n.
func addr4(n, host int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf(net4, n, host)) }
func addr6(n, host int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf(net6, n, host)) }

// pair is the common topology: a client and a server on wire 0, the firewall
// under test on the server.
func pair(t testing.TB) (client, server *testHost) {
	client, server = newHost(t), newHost(t)
	wire(client, server, 0)
	return client, server
}

// sysctl sets a network setting of the calling thread's namespace.
func sysctl(t testing.TB, name, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// rename gives an interface another name. Kernels before 6.2 refuse that while it
// is up.
func (h *testHost) rename(from, to string) {
	h.t.Helper()
	if from == to {
		return
	}
	h.try(func() error {
		link, err := netlink.LinkByName(from)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetName(link, to); !errors.Is(err, unix.EBUSY) {
			return err
		}
		return errors.Join(netlink.LinkSetDown(link), netlink.LinkSetName(link, to), netlink.LinkSetUp(link))
	})
}
