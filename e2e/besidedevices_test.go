//go:build guest

package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// needsDevice leaves the test out where the kernel makes no such device.
func needsDevice(t *testing.T, h *lab.Host, option string, args ...string) {
	t.Helper()
	if out, err := h.Try(waitLong, append([]string{"ip", "link", "add"}, args...)...); err != nil {
		t.Skipf("this kernel has not such a device (%s): %s", option, strings.TrimSpace(out))
	}
}

// move takes the addresses of the pair from the veth devices to others.
func (b *beside) move(clientDev, serverDev string) {
	b.t.Helper()
	b.dev = clientDev
	for i, end := range []struct {
		h        *lab.Host
		from, to string
	}{{b.server, "s0", serverDev}, {b.client, "c0", clientDev}} {
		if end.from == end.to {
			continue
		}
		end.h.Run("ip", "addr", "flush", "dev", end.from)
		end.h.Run("ip", "link", "set", end.to, "up")
		end.h.Run("ip", "addr", "add", fmt.Sprintf("10.77.0.%d/24", i+1), "dev", end.to)
		end.h.Run("ip", "addr", "add", fmt.Sprintf("fd77::%d/64", i+1), "dev", end.to, "nodad")
	}
	for _, addr := range besideAddresses {
		b.Eventually(waitLong, addr.String()+" answers", func() bool { return pings(b.client, addr.String()) })
	}
}

// The hosts' addresses are on devices of every kind, over the veth pair.
func TestBesideDevices(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		make func(b *beside)
	}{
		{"vlan", func(b *beside) {
			for h, dev := range map[*lab.Host]string{b.client: "c0", b.server: "s0"} {
				needsDevice(b.t, h, "CONFIG_VLAN_8021Q", "link", dev, "name", "vlan7", "type", "vlan", "id", "7")
			}
			b.move("vlan7", "vlan7")
		}},
		{"bridge", func(b *beside) {
			needsDevice(b.t, b.server, "CONFIG_BRIDGE", "br0", "type", "bridge")
			b.server.Run("ip", "link", "set", "s0", "master", "br0")
			b.move("c0", "br0")
		}},
		{"bond", func(b *beside) {
			for h, dev := range map[*lab.Host]string{b.client: "c0", b.server: "s0"} {
				needsDevice(b.t, h, "CONFIG_BONDING", "bond0", "type", "bond", "mode", "active-backup", "miimon", "100")
				h.Run("ip", "link", "set", dev, "down")
				h.Run("ip", "link", "set", dev, "master", "bond0")
				h.Run("ip", "link", "set", dev, "up")
			}
			b.move("bond0", "bond0")
		}},
		{"macvlan", func(b *beside) {
			needsDevice(b.t, b.server, "CONFIG_MACVLAN", "link", "s0", "name", "mac0", "type", "macvlan", "mode", "private")
			b.move("c0", "mac0")
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			b := besidePair(t)
			row.make(b)
			b.run()
		})
	}
}

// The server's link is in a VRF. ipfw judges what comes by it, by the name of the
// VRF. It protects nothing there, for what it sends and what it has opened goes by
// the main table: README's limits tell of it. Then nothing crosses in the clear.
func TestBesideVRF(t *testing.T) {
	t.Parallel()
	b := besidePair(t)
	needsDevice(b.t, b.server, "CONFIG_NET_VRF", "red", "type", "vrf", "table", "10")
	b.server.Run("ip", "link", "set", "red", "up")
	// A link that gets a master loses its IPv6 addresses.
	b.server.Sysctl("net.ipv6.conf.s0.keep_addr_on_down", "1")
	b.server.Run("ip", "link", "set", "s0", "master", "red")
	// The programs are in no VRF, and hear all of them.
	b.server.Sysctl("net.ipv4.tcp_l3mdev_accept", "1")
	b.server.Sysctl("net.ipv4.udp_l3mdev_accept", "1")
	b.server.Run("ip", "addr", "replace", "fd77::1/64", "dev", "s0", "nodad")
	b.move("c0", "s0")
	before := b.rules()
	b.start()
	wire := b.client.Capture(b.dev, "")
	for _, addr := range besideAddresses {
		b.carries("in a VRF", "tcp", netip.AddrPortFrom(addr, portOpen), 4000)
		was := counted(t, b.b, "default")
		if b.connects(netip.AddrPortFrom(addr, portShut)) {
			t.Errorf("%v is open", addr)
		}
		if counted(t, b.b, "default") == was {
			t.Errorf("what is discarded is not counted:\n%s", b.status())
		}
		if b.connects(netip.AddrPortFrom(addr, portSealed)) {
			t.Errorf("%v is protected: README's limits say that it is not", addr)
		}
	}
	if n := wire.Count(fmt.Sprintf("port %d", portSealed)); n > 0 {
		t.Errorf("%d packets of what is to be protected crossed in the clear:\n%s", n, wire.Text(""))
	}
	b.ends(before)
}

// The link is slow, loses and reorders packets (netem on both ends): what is
// protected comes whole, in TCP and, where a program sends again, in UDP.
func TestBesideNetem(t *testing.T) {
	t.Parallel()
	b := besidePair(t)
	for h, dev := range map[*lab.Host]string{b.client: "c0", b.server: "s0"} {
		args := strings.Fields("tc qdisc add dev " + dev + " root netem delay 20ms 5ms loss 1% reorder 25% 50% limit 10000")
		if out, err := h.Try(waitLong, args...); err != nil {
			t.Skip("this kernel has not netem (CONFIG_NET_SCH_NETEM): " + strings.TrimSpace(out))
		}
	}
	b.run(change{"2 MiB at once", func() {
		for _, addr := range besideAddresses {
			b.carries("netem", "tcp", netip.AddrPortFrom(addr, portSealed), 2<<20)
		}
	}, false})
}

// Links of every length carry what is allowed and what is protected.
func TestBesideMTU(t *testing.T) {
	t.Parallel()
	b := besidePair(t)
	b.start()
	for _, mtu := range []string{"1280", "1400", "9000", "1500"} {
		for h, dev := range map[*lab.Host]string{b.client: "c0", b.server: "s0"} {
			h.Run("ip", "link", "set", dev, "mtu", mtu)
			h.Run("ip", "-6", "route", "flush", "cache")
			h.Run("ip", "route", "flush", "cache")
		}
		b.holds("MTU " + mtu)
	}
}

// The kernel's offloads are switched off and on while connections live.
func TestBesideOffloads(t *testing.T) {
	t.Parallel()
	b := besidePair(t)
	b.start()
	ends := map[*lab.Host]string{b.client: "c0", b.server: "s0"}
	set := func(value uint32, features ...uint32) {
		for h, dev := range ends {
			if err := h.Do(func() error { return setFeatures(dev, value, features...) }); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.holds("offloads as they are")
	set(1, receiveOffload)
	b.holds("GRO on")
	set(0, segmentation, tcpSegmentation)
	b.holds("GSO and TSO off")
	set(0, receiveOffload, segmentation, tcpSegmentation, txChecksums)
	b.holds("GRO, GSO, TSO and checksums off")
	set(1, txChecksums, segmentation, tcpSegmentation)
	b.holds("all but GRO on")
}

// Modules come and go while ipfw runs; one that it uses the kernel keeps.
func TestBesideModules(t *testing.T) {
	b := besidePair(t)
	b.start()
	b.holds("before")
	for _, m := range []string{"esp4", "esp6", "ah4", "wireguard", "xt_conntrack", "iptable_filter", "ip6table_nat", "nft_flow_offload", "br_netfilter",
		"nf_conntrack_ftp", "nf_nat_tftp", "xt_bpf", "nft_fib_inet", "nfnetlink_log", "sctp"} {
		if out, err := b.server.Try(waitLong, "modprobe", m); err != nil {
			t.Logf("modprobe %s: %v %s", m, err, strings.TrimSpace(out))
		}
	}
	b.holds("modules were loaded")
	for _, m := range []string{"esp4", "esp6", "ah4", "wireguard", "iptable_filter", "ip6table_nat", "nft_flow_offload", "br_netfilter", "nf_conntrack_ftp", "nf_nat_tftp", "nfnetlink_log",
		"nft_ct", "nft_queue", "nfnetlink_queue", "xt_conntrack", "nf_conntrack_netlink", "nf_tables", "nf_conntrack"} {
		out, err := b.server.Try(waitLong, "modprobe", "-r", m)
		t.Logf("modprobe -r %s: %v %s", m, err, strings.TrimSpace(out))
	}
	b.holds("modules were unloaded")
}
