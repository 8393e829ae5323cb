package e2e

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// secondUplink gives the gateway of a site another wire, to mallory.
func (s *site) secondUplink() {
	s.Helper()
	s.Join(s.gateway, "wan1", []string{"203.0.113.1/24", "2001:db8:3::1/64"}, s.mallory, "m1", []string{"203.0.113.2/24", "2001:db8:3::2/64"})
	s.gateway.Sysctl("net.ipv4.conf.all.rp_filter", "0")
	s.gateway.Sysctl("net.ipv6.conf.all.keep_addr_on_down", "1")
}

// change writes the gateway's policy anew, and waits until it is in force.
func (s *site) change(old, new string) {
	s.Helper()
	text, err := os.ReadFile(filepath.Join(s.Dir, "gateway.hcl"))
	if err != nil || !strings.Contains(string(text), old) {
		s.Fatalf("%q is not in the policy (%v)", old, err)
	}
	s.File("gateway.hcl", strings.Replace(string(text), old, new, 1))
	s.g.Ask("reload")
}

// dialUDP connects a socket of a host, from an address of it.
func dialUDP(t *testing.T, h *lab.Host, from, to string, port int) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	err := h.Do(func() (err error) {
		c, err = net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(from)}, &net.UDPAddr{IP: net.ParseIP(to), Port: port})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// siteEnds are the ends of a site's tunnel, and the host behind the gateway.
var siteEnds = []struct{ far, host, gateway string }{
	{"10.2.0.5", "198.51.100.77", "192.0.2.1"},
	{"fd00:2::5", "fd00:1::77", "2001:db8::1"},
}

// works demands that the tunnel carries what it should, whoever opens: TCP, UDP,
// and ICMP errors.
func (s *site) works(t *testing.T, when string) {
	t.Helper()
	for _, v := range siteEnds {
		for _, network := range []string{"tcp", "udp"} {
			size := 1200
			if network == "tcp" {
				size = 1 << 20
			}
			for h, way := range map[*lab.Host][2]string{s.far: {v.far, v.host}, s.lan: {v.host, v.far}} {
				x := lab.Transfer{Network: network, From: netip.MustParseAddr(way[0]), To: netip.AddrPortFrom(netip.MustParseAddr(way[1]), 7), Size: size, Limit: waitLong}
				if err := h.Do(x.Do); err != nil {
					t.Errorf("%s: %v from %s: %v\n%s", when, x, way[0], err, s.g.Ask("status"))
				}
			}
		}
		c := dialUDP(t, s.lan, v.host, v.far, 9) // nobody listens there
		s.Eventually(waitLong, when+": the far end's ICMP error arrives", func() bool {
			_, _ = c.Write([]byte("word"))
			_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			_, err := c.Read(make([]byte, 10))
			return errors.Is(err, syscall.ECONNREFUSED)
		})
	}
}

// What comes out of a tunnel for the network behind a gateway goes there or
// nowhere: while its link is down the default route would send it back to the
// wire in the clear, or by another uplink, which a rule with `interface`
// forbids.
func TestOpenedStays(t *testing.T) {
	for way, o := range openedWays() {
		for _, dev := range []string{"", "a0"} {
			t.Run(way+","+dev, func(t *testing.T) { tryOpenedStays(t, o, dev) })
		}
	}
}

// openedWays are the ways by which packets come out of an SA.
func openedWays() map[string]siteOptions {
	return map[string]siteOptions{
		"ring":  {far: true},
		"queue": {far: true, starter: noBPF},
		"udp":   {far: true, ipsec: lab.Manual{Extra: `  encapsulation = "udp"`}},
		"ah":    {far: true, ipsec: lab.Manual{Protocol: "ah"}},
	}
}

func tryOpenedStays(t *testing.T, o siteOptions, dev string) {
	lab.Need(t, "tcpdump", "setpriv")
	s := newSite(t, o)
	s.secondUplink()
	why := "turns-back"
	if dev != "" {
		s.change(`direction      = "forward"`, `direction      = "forward"`+"\n  interface = \""+dev+`"`)
		why = "default"
	}
	for _, h := range []*lab.Host{s.lan, s.far} {
		if err := h.Do(func() error { return lab.Serve(7) }); err != nil {
			t.Fatal(err)
		}
	}
	s.works(t, "at first")

	// Flows that are open when the link goes: one from the far end, one to it.
	var words []func()
	for _, v := range siteEnds {
		c := dialUDP(t, s.far, v.far, v.host, 7)
		f := &wordFlow{Conn: c}
		if !f.says(waitLong) {
			t.Fatal("no answer")
		}
		var answers *net.UDPConn
		if err := s.far.Do(func() (err error) {
			answers, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(v.far)})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		defer answers.Close()
		to := answers.LocalAddr().(*net.UDPAddr)
		_, _ = dialUDP(t, s.lan, v.host, v.far, to.Port).Write([]byte("ask"))
		_ = answers.SetReadDeadline(time.Now().Add(waitLong))
		_, asker, err := answers.ReadFrom(make([]byte, 10))
		if err != nil {
			t.Fatal(err)
		}
		words = append(words,
			func() { _, _ = c.Write([]byte(protectedText)) },
			func() { _, _ = answers.WriteTo([]byte(protectedText), asker) },
			func() { _, _ = dialUDP(t, s.far, v.far, v.host, 7).Write([]byte(protectedText)) })
	}
	away := func(what string, wire *lab.Capture, why string) {
		t.Helper()
		before := counted(t, s.g, why)
		for _, say := range words {
			say()
		}
		const host = "host 198.51.100.77 or host fd00:1::77"
		if n := wire.Count(host); n > 0 {
			t.Errorf("%s: %d packets in the clear:\n%s", what, n, wire.Text(host))
		}
		if o.ipsec.Protocol != "ah" && wire.Contains(protectedText) {
			t.Errorf("%s: protected text was seen", what)
		}
		s.Eventually(waitLong, what+": all are discarded", func() bool { return counted(t, s.g, why) >= before+uint64(len(words)) })
	}
	s.gateway.Run("ip", "link", "set", "a0", "down")
	away("the link is down", s.wire.Capture("sw0", "not arp"), why)
	if dev != "" {
		s.gateway.Run("ip", "route", "replace", "default", "via", "203.0.113.2")
		s.gateway.Run("ip", "-6", "route", "replace", "default", "via", "2001:db8:3::2")
		away("the other uplink", s.mallory.Capture("m1", "not arp"), why)
	}
	s.gateway.Run("ip", "link", "set", "a0", "up")
	s.works(t, "the link is up again")
}

// What came out of an SA and is then sent elsewhere by another program's address
// translation is not what policy was asked about: neither what was for this host
// goes on, nor does this host get what was to go on, nor by another port.
func TestOpenedIsNotTranslated(t *testing.T) {
	for way, o := range openedWays() {
		t.Run(way, func(t *testing.T) {
			lab.Need(t, "nft", "tcpdump", "setpriv")
			s := newSite(t, o)
			s.secondUplink()
			if out, err := s.gateway.Try(waitLong, "nft", `
table inet other {
	chain nat {
		type nat hook prerouting priority -100
		udp dport 8080 meta nfproto ipv4 dnat ip to 203.0.113.2:80
		udp dport 8080 meta nfproto ipv6 dnat ip6 to [2001:db8:3::2]:80
		udp dport 9090 meta nfproto ipv4 redirect to :7000
		udp dport 9090 meta nfproto ipv6 dnat ip6 to [2001:db8::1]:7000
	}
}`); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			var local *net.UDPConn
			if err := s.gateway.Do(func() (err error) { local, err = net.ListenUDP("udp", &net.UDPAddr{Port: 7000}); return err }); err != nil {
				t.Fatal(err)
			}
			defer local.Close()
			other := s.mallory.Capture("m1", "udp")
			for _, v := range siteEnds {
				for _, to := range []struct {
					address string
					port    int
				}{{v.gateway, 8080}, {v.host, 8080}, {v.gateway, 9090}, {v.host, 9090}} {
					before := counted(t, s.g, "translated")
					_, _ = dialUDP(t, s.far, v.far, to.address, to.port).Write([]byte(protectedText))
					s.Eventually(waitLong, "what goes to "+net.JoinHostPort(to.address, strconv.Itoa(to.port))+" is discarded", func() bool { return counted(t, s.g, "translated") > before })
				}
				// To the very port nobody has to lead anything.
				_, _ = dialUDP(t, s.far, v.far, v.gateway, 7000).Write([]byte("direct"))
				_ = local.SetReadDeadline(time.Now().Add(waitLong))
				b := make([]byte, 64)
				if n, _, err := local.ReadFrom(b); err != nil || string(b[:n]) != "direct" {
					t.Errorf("this host got %q, %v", b[:n], err)
				}
			}
			if n := other.Count("udp"); n > 0 {
				t.Errorf("%d packets were forwarded in the clear:\n%s", n, other.Text("udp"))
			}
		})
	}
}
