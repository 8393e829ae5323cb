package nfq

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// The networks of an interface follow its addresses, and it is known by the name
// that it has. The last address of an IPv4 network is for everybody, whether or
// not it was set as a broadcast address.
func TestNetworks(t *testing.T) {
	t.Parallel()
	_, server := pair(t)
	fw := server.start(Config{}, pass)
	eventually := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not in time: %s; eth0 is in %v", what, fw.Networks("eth0"))
			}
		}
	}
	in := func(dev, network string) bool {
		return slices.Contains(fw.Networks(dev), netip.MustParsePrefix(network))
	}
	change := func(f func(netlink.Link) error) {
		t.Helper()
		server.try(func() error {
			dev, err := netlink.LinkByName("eth0")
			if err == nil {
				err = f(dev)
			}
			return err
		})
	}
	address := func(network string) *netlink.Addr {
		a, err := netlink.ParseAddr(network)
		if err != nil {
			t.Fatal(err)
		}
		a.Broadcast = []byte{0, 0, 0, 0} // none
		return a
	}
	eventually("its own addresses", func() bool {
		return in("eth0", netip.PrefixFrom(addr4(0, 2), 24).String()) && in("eth0", netip.PrefixFrom(addr6(0, 2), 64).String())
	})
	if all := netip.MustParseAddr("10.9.0.255"); !fw.IsLocal(all) {
		t.Errorf("%s is not for this host", all)
	}
	change(func(dev netlink.Link) error { return netlink.AddrAdd(dev, address("192.0.2.7/25")) })
	eventually("an address without a broadcast address", func() bool { return in("eth0", "192.0.2.7/25") })
	if !fw.IsLocal(addrOf("192.0.2.127")) || fw.IsLocal(addrOf("192.0.2.255")) || fw.IsLocal(addrOf("192.0.2.0")) {
		t.Error("of 192.0.2.7/25 not 192.0.2.127 is for everybody")
	}
	change(func(dev netlink.Link) error { return netlink.AddrAdd(dev, address("198.51.100.4/31")) })
	eventually("a network of two", func() bool { return in("eth0", "198.51.100.4/31") })
	if fw.IsLocal(addrOf("198.51.100.5")) {
		t.Error("the other of two is taken for everybody")
	}
	change(func(dev netlink.Link) error {
		a := address("203.0.113.1/32")
		a.Peer = address("203.0.113.9/32").IPNet
		return netlink.AddrAdd(dev, a)
	})
	eventually("the far end of a point-to-point address", func() bool { return in("eth0", "203.0.113.9/32") })
	change(func(dev netlink.Link) error { return netlink.AddrDel(dev, address("192.0.2.7/25")) })
	eventually("an address that is gone", func() bool { return !in("eth0", "192.0.2.7/25") && !fw.IsLocal(addrOf("192.0.2.127")) })
	server.rename("eth0", "wan0")
	eventually("the new name", func() bool { return in("wan0", "198.51.100.4/31") && fw.Networks("eth0") == nil })
	if n := fw.Networks(""); n != nil {
		t.Errorf("no interface is in %v", n)
	}
}
