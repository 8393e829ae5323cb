package nfq

import (
	"net/netip"
	"testing"

	"github.com/ipfw/ipfw/packet"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// toldExpectation is a message of the kernel: who has opened the master, what it
// expects under which mask, and, if saved is valid, where translation leads it.
type toldExpectation struct {
	from, to, src, dst string // with ports
	srcMask            string
	portMask           uint16
	proto              uint8
	saved              string
	reply              bool
}

func (x toldExpectation) message(t testing.TB) []byte {
	t.Helper()
	at := netip.MustParseAddrPort
	both := func(a, b string) func(*netlink.AttributeEncoder) error {
		return toldTuple(at(a).Addr(), at(b).Addr(), x.proto, at(a).Port(), at(b).Port())
	}
	ones := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	if at(x.src).Addr().Is6() {
		ones = netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
	}
	e := netlink.NewAttributeEncoder()
	e.Nested(expectMaster, both(x.from, x.to))
	e.Nested(expectTuple, both(x.src, x.dst))
	e.Nested(expectMask, toldTuple(addrOf(x.srcMask), ones, x.proto, x.portMask, 0xffff))
	if x.saved != "" {
		e.Nested(expectNAT, func(e *netlink.AttributeEncoder) error {
			dir := []byte{0, 0, 0, 0}
			if x.reply {
				dir[3] = 1
			}
			e.Bytes(expectNATDir, dir)
			e.Nested(expectNATTuple, both(x.saved, netip.AddrPortFrom(at(x.saved).Addr(), 0).String()))
			return nil
		})
	}
	b, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte{unix.AF_UNSPEC, 0, 0, 0}, b...)
}

// toldTFTP: 10.9.0.1:3000 has asked 10.9.0.2 for a file, which may come from any
// port there.
func toldTFTP() toldExpectation {
	return toldExpectation{from: "10.9.0.1:3000", to: "10.9.0.2:69", src: "10.9.0.2:0", dst: "10.9.0.1:3000", srcMask: "255.255.255.255", proto: unix.IPPROTO_UDP}
}

// A packet fits an expectation by what the kernel has compared as well, and goes
// where translation leads it.
func TestExpectationFits(t *testing.T) {
	t.Parallel()
	masqueraded := toldTFTP()
	masqueraded.from, masqueraded.dst, masqueraded.saved, masqueraded.reply = "10.0.0.5:3000", "10.9.0.1:7000", "0.0.0.0:3000", true
	// A client asks a server behind this router, and is to be answered with a port there.
	published := toldExpectation{from: "10.9.0.2:5000", to: "10.9.0.1:21", src: "10.9.0.2:0", dst: "10.9.0.1:6000", srcMask: "255.255.255.255", proto: unix.IPPROTO_TCP, saved: "0.0.0.0:6001"}
	noted := masqueraded
	noted.saved = "10.0.0.9:3000"
	six := toldExpectation{from: "[fd00:9::1]:3000", to: "[fd00:9::2]:69", src: "[fd00:9::2]:0", dst: "[fd00:9::1]:3000", srcMask: "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", proto: unix.IPPROTO_UDP}
	anybody := toldTFTP() // on the network, as for the names of NetBIOS
	anybody.srcMask, anybody.src, anybody.portMask = "255.255.255.0", "10.9.0.255:137", 0xffff
	for _, row := range []struct {
		name                string
		told                toldExpectation
		proto               uint8
		from, to            string
		clientOf, serverFor string // of the master, as this host sees it
		fits, leads         bool
	}{
		{"the data", toldTFTP(), packet.UDP, "10.9.0.2:40000", "10.9.0.1:3000", "10.9.0.1:3000", "10.9.0.2:69", true, true},
		{"by a stranger", toldTFTP(), packet.UDP, "10.9.0.3:40000", "10.9.0.1:3000", "10.9.0.1:3000", "10.9.0.2:69", false, false},
		{"to another port", toldTFTP(), packet.UDP, "10.9.0.2:40000", "10.9.0.1:3001", "10.9.0.1:3000", "10.9.0.2:69", false, false},
		{"to another host", toldTFTP(), packet.UDP, "10.9.0.2:40000", "10.9.0.4:3000", "10.9.0.1:3000", "10.9.0.2:69", false, false},
		{"of another protocol", toldTFTP(), packet.TCP, "10.9.0.2:40000", "10.9.0.1:3000", "10.9.0.1:3000", "10.9.0.2:69", false, false},
		{"of another family", toldTFTP(), packet.UDP, "[fd00:9::2]:40000", "[fd00:9::1]:3000", "10.9.0.1:3000", "10.9.0.2:69", false, false},
		{"IPv6", six, packet.UDP, "[fd00:9::2]:40000", "[fd00:9::1]:3000", "[fd00:9::1]:3000", "[fd00:9::2]:69", true, true},
		{"IPv6 by a stranger", six, packet.UDP, "[fd00:9::3]:40000", "[fd00:9::1]:3000", "[fd00:9::1]:3000", "[fd00:9::2]:69", false, false},
		{"anybody on a network", anybody, packet.UDP, "10.9.0.77:137", "10.9.0.1:3000", "10.9.0.1:3000", "10.9.0.2:69", true, true},
		{"anybody by another port", anybody, packet.UDP, "10.9.0.77:138", "10.9.0.1:3000", "10.9.0.1:3000", "10.9.0.2:69", false, false},
		{"somebody elsewhere", anybody, packet.UDP, "10.9.1.77:137", "10.9.0.1:3000", "10.9.0.1:3000", "10.9.0.2:69", false, false},
		{"masqueraded", masqueraded, packet.UDP, "10.9.0.2:40000", "10.0.0.5:3000", "10.0.0.5:3000", "10.9.0.2:69", true, true},
		{"masqueraded, to another host", masqueraded, packet.UDP, "10.9.0.2:40000", "10.0.0.6:3000", "10.0.0.5:3000", "10.9.0.2:69", true, false},
		{"masqueraded, to another port", masqueraded, packet.UDP, "10.9.0.2:40000", "10.0.0.5:3001", "10.0.0.5:3000", "10.9.0.2:69", false, false},
		{"published", published, packet.TCP, "10.9.0.2:40000", "10.0.0.7:6001", "10.9.0.2:5000", "10.0.0.7:21", true, true},
		{"published, to another host", published, packet.TCP, "10.9.0.2:40000", "10.0.0.8:6001", "10.9.0.2:5000", "10.0.0.7:21", true, false},
		{"as the helper has noted", noted, packet.UDP, "10.9.0.2:40000", "10.0.0.9:3000", "10.0.0.5:3000", "10.9.0.2:69", true, true},
		{"not as it has noted", noted, packet.UDP, "10.9.0.2:40000", "10.0.0.5:3000", "10.0.0.5:3000", "10.9.0.2:69", true, false},
	} {
		var e expectation
		if !e.parse(row.told.message(t)) {
			t.Fatalf("%s: not read", row.name)
		}
		from, to := netip.MustParseAddrPort(row.from), netip.MustParseAddrPort(row.to)
		p := &packet.Packet{Protocol: row.proto, Src: from.Addr(), Dst: to.Addr(), SrcPort: from.Port(), DstPort: to.Port(), HasPorts: true}
		client, server := netip.MustParseAddrPort(row.clientOf), netip.MustParseAddrPort(row.serverFor)
		c := &connection{orig: tuple{src: client.Addr(), srcPort: client.Port()}, reply: tuple{src: server.Addr(), srcPort: server.Port()}}
		if fits := e.fits(p); fits != row.fits || fits && e.leadsTo(c, p) != row.leads {
			t.Errorf("%s: fits %v, leads there %v", row.name, fits, e.leadsTo(c, p))
		}
	}
}

func TestExpectationMessageCut(t *testing.T) {
	t.Parallel()
	x := toldTFTP()
	b := x.message(t)
	for n := range b {
		if (&expectation{}).parse(b[:n]) {
			t.Errorf("a message cut at %d of %d bytes is read as whole", n, len(b))
		}
	}
}

// What cannot be an expectation does no harm, and what is read can be asked about.
func FuzzExpectation(f *testing.F) {
	f.Add(toldTFTP().message(f))
	x := toldTFTP()
	x.saved = "10.0.0.9:3000"
	f.Add(x.message(f))
	f.Add([]byte{0, 0, 0, 0, 4, 0, 1, 128})
	f.Fuzz(func(t *testing.T, b []byte) {
		var e expectation
		if !e.parse(b) {
			return
		}
		p := &packet.Packet{Protocol: e.tuple.proto, Src: e.tuple.src, Dst: e.tuple.dst, SrcPort: e.tuple.srcPort, DstPort: e.tuple.dstPort, HasPorts: true}
		e.fits(p)
		if name, _ := ctName(e.master, e.opener); len(name) < sizeofAttr+len(e.master) {
			t.Errorf("%x gives %x", b, name)
		}
	})
}
