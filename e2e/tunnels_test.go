package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipfw/ipfw/e2e/lab"
)

// Transport mode between gateways that protects another tunnel: hosts behind
// both reach each other through VXLAN, and all that crosses is ESP.
//
//	n 10.1.0.5 -- left 198.51.100.1 == VXLAN under ESP == 198.51.100.2 right -- s 10.2.0.9
func TestVXLANOverTransport(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	n, left, right, s := l.Host("n"), l.Host("left"), l.Host("right"), l.Host("s")
	l.Join(n, "n0", []string{"10.1.0.5/16"}, left, "lan0", []string{"10.1.0.1/16"})
	l.Join(left, "wan0", []string{"198.51.100.1/24"}, right, "wan0", []string{"198.51.100.2/24"})
	l.Join(right, "lan0", []string{"10.2.0.1/16"}, s, "s0", []string{"10.2.0.9/16"})
	n.Run("ip", "route", "add", "default", "via", "10.1.0.1")
	s.Run("ip", "route", "add", "default", "via", "10.2.0.1")
	for i, g := range []*lab.Host{left, right} {
		g.Sysctl("net.ipv4.ip_forward", "1")
		g.Run("ip", "link", "add", "vxlan0", "type", "vxlan", "id", "7", "dstport", "4789", "dev", "wan0",
			"local", fmt.Sprintf("198.51.100.%d", i+1), "remote", fmt.Sprintf("198.51.100.%d", 2-i))
		g.Run("ip", "addr", "add", fmt.Sprintf("10.7.0.%d/24", i+1), "dev", "vxlan0")
		g.Run("ip", "link", "set", "vxlan0", "up")
		g.Run("ip", "route", "add", fmt.Sprintf("10.%d.0.0/16", 2-i), "via", fmt.Sprintf("10.7.0.%d", 2-i))
	}
	l.Scenario("tunnel-over-transport")
	l.KeyFiles("left/right.keys", "right/left.keys", 32, 32)
	startNginx(t, l, s, 80)
	big(l, "www/big", 8<<20)
	a, b := left.RunScenario(), right.RunScenario()
	wire := left.Capture("wan0", "not ether multicast")

	n.Run("ping", "-c", "2", "-i", "0.2", "-W", "3", "10.2.0.9")
	s.Run("ping", "-c", "2", "-i", "0.2", "-W", "3", "-s", "3000", "10.1.0.5")
	left.Run("ping", "-c", "2", "-i", "0.2", "-W", "3", "10.7.0.2")
	if !get(n, "http://10.2.0.9/") {
		t.Errorf("no page through the tunnel: %s", a.Ask("status"))
	}
	if got := n.Run("sh", "-c", "curl -s -m 40 http://10.2.0.9/big | sha256sum"); got != sum(l, "www/big") {
		t.Errorf("the file came out different: %s", got)
	}
	sealedOnly(t, wire, 1000)
	if wire.Contains("hello from nginx") {
		t.Error("the page crossed in the clear")
	}

	// Around the tunnel nothing gets through: not by a route that misses it,
	// not by VXLAN that somebody else has made.
	around := left.Capture("wan0", "host 10.1.0.5 or host 10.2.0.9")
	left.Run("ip", "route", "replace", "10.2.0.0/16", "via", "198.51.100.2", "dev", "wan0")
	if get(n, "http://10.2.0.9/", "-m", "1") {
		t.Error("a page came around the tunnel")
	}
	if k := around.Count("ip"); k > 0 {
		t.Errorf("%d packets went around the tunnel:\n%s", k, around.Text("ip"))
	}
	was := counted(t, b, "clear-text")
	a.Kill()
	left.Run(lab.Binary(t), "open")
	if _, err := left.Try(waitLong, "ping", "-c", "2", "-W", "1", "10.7.0.2"); err == nil {
		t.Error("right takes VXLAN in the clear")
	}
	if counted(t, b, "clear-text") == was {
		t.Errorf("right has counted no clear text:\n%s", b.Ask("status"))
	}
}

// The same with GRE and IP-in-IP, which this kernel has not: the guest is
// right, with its kernel's tunnels under its kernel's ESP; left makes them in
// user space, below ipfw all the same.
func TestGREAndIPIPOverTransport(t *testing.T) {
	l := lab.New(t)
	g, left := l.Guest("right"), l.Host("left")
	g.Join(left, "wan0", []string{"198.51.100.1/24"}, []string{"198.51.100.2/24"})
	tunnels := []struct {
		dev, kind, protocol string
		number              int
		head                string // before the inner packet
		left, right         string
	}{
		{"gre1", "gre", "gre", unix.IPPROTO_GRE, "\x00\x00\x08\x00", "10.7.1.1", "10.7.1.2"}, // RFC 2784 section 2: no options, IPv4
		{"ipip1", "ipip", "4", unix.IPPROTO_IPIP, "", "10.7.2.1", "10.7.2.2"},
	}
	row := xfrmRow{}
	for _, r := range xfrmRows() {
		if r.String() == "esp transport v4 v4 aes-256-cbc hmac-sha2-256-128 - - -" {
			row = r
		}
	}
	keys := newXFRMKeys(row, 0)
	keys.spi = [2]uint32{0x1002, 0x1001}
	var b strings.Builder
	ends := [2]string{"198.51.100.1", "198.51.100.2"}
	for way := range 2 {
		fmt.Fprintf(&b, "xfrm state add src %s dst %s proto esp spi %#x reqid 1 mode transport replay-window 32 %s\n",
			ends[way], ends[1-way], keys.spi[way], row.algorithms(keys, way))
		for _, x := range tunnels {
			fmt.Fprintf(&b, "xfrm policy add src %s dst %s proto %s dir %s tmpl proto esp reqid 1 mode transport\n",
				ends[way], ends[1-way], x.protocol, [2]string{"in", "out"}[way])
		}
	}
	if out, err := g.Pipe(waitLong, b.String(), "ip", "-batch", "-"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, x := range tunnels {
		g.Run("ip", "tunnel", "add", x.dev, "mode", x.kind, "local", ends[1], "remote", ends[0])
		g.Run("ip", "addr", "add", x.right+"/24", "dev", x.dev)
		g.Run("ip", "link", "set", x.dev, "up", "mtu", "1380")
		rawTunnel(t, left, x.dev, x.number, x.head, netip.MustParseAddr(ends[1]))
		left.Run("ip", "addr", "add", x.left+"/24", "dev", x.dev)
		left.Run("ip", "link", "set", x.dev, "up", "mtu", "1380")
	}
	l.Scenario("tunnel-over-transport")
	l.File("left/right.keys", keys.file())
	d := left.RunScenario()
	g.Serve(7)
	if err := left.Do(func() error { return lab.Serve(7) }); err != nil {
		t.Fatal(err)
	}
	wire := g.Wire.Capture("sw0", "not ether multicast")
	for _, x := range tunnels {
		left.Run("ping", "-c", "2", "-i", "0.2", "-W", "3", x.right)
		if out, err := g.Try(waitLong, "ping", "-c", "2", "-i", "0.2", "-W", "3", "-s", "3000", x.left); err != nil {
			t.Errorf("%s: %v\n%s", x.dev, err, out)
		}
		to := lab.Transfer{Network: "tcp", To: netip.AddrPortFrom(netip.MustParseAddr(x.right), 7), Size: 1 << 20, Limit: waitLong}
		if err := left.Do(to.Do); err != nil {
			t.Errorf("%s, %v: %v\n%s", x.dev, to, err, d.Ask("status"))
		}
		to.To = netip.AddrPortFrom(netip.MustParseAddr(x.left), 7)
		if err := g.Transfer(to); err != nil {
			t.Errorf("%s from the guest, %v: %v", x.dev, to, err)
		}
	}
	sealedOnly(t, wire, 1000)

	// Without IPsec the guest's tunnels are not heard.
	was := counted(t, d, "clear-text")
	g.Run("ip", "xfrm", "policy", "flush")
	for _, x := range tunnels {
		if out, err := g.Try(waitLong, "ping", "-c", "1", "-W", "1", x.left); err == nil {
			t.Errorf("left takes %s in the clear:\n%s", x.kind, out)
		}
	}
	if counted(t, d, "clear-text") < was+2 {
		t.Errorf("left has not counted the clear text:\n%s", d.Ask("status"))
	}
}

// rawTunnel makes a tunnel of a protocol number in user space, until the test
// ends: a TUN device, and a raw socket to the far end.
func rawTunnel(t *testing.T, h *lab.Host, dev string, protocol int, head string, far netip.Addr) {
	t.Helper()
	var tun *os.File
	var raw int
	err := h.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		ifr, err := unix.NewIfreq(dev)
		if err != nil {
			return err
		}
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
			return err
		}
		tun = os.NewFile(uintptr(fd), dev)
		raw, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
		if err == nil {
			err = unix.SetsockoptTimeval(raw, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000})
		}
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v", dev, err)
	}
	stop, in, out := make(chan struct{}), make(chan struct{}), make(chan struct{})
	to := &unix.SockaddrInet4{Addr: far.As4()}
	go func() { // from the device to the far end
		defer close(out)
		b := make([]byte, 1<<16)
		n := copy(b, head)
		for {
			k, err := tun.Read(b[n:])
			if err != nil {
				return
			}
			if b[n]>>4 == 4 {
				_ = unix.Sendto(raw, b[:n+k], 0, to) // a tunnel may lose packets
			}
		}
	}()
	go func() { // and back
		defer close(in)
		b := make([]byte, 1<<16)
		for {
			select {
			case <-stop:
				return
			default:
			}
			n, _, err := unix.Recvfrom(raw, b, 0)
			if err != nil || n < 20 {
				continue
			}
			if p := string(b[int(b[0]&15)*4 : n]); strings.HasPrefix(p, head) {
				_, _ = tun.WriteString(p[len(head):])
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-in; _ = tun.Close(); <-out; _ = unix.Close(raw) })
}
