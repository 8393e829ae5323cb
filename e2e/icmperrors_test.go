package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/packet"
)

// leaks takes what may not be seen on a wire that only sealed packets cross.
const leaks = "(icmp or icmp6 or tcp or udp) and not udp port 4500 and not (icmp6 and ip6[40]>=130)"

// The gateway's ICMP errors about protected traffic, and those of routers behind
// it, reach the sender, and they do so sealed: nothing of what they quote is seen
// on the wire, and path MTU discovery works through the tunnel.
func TestErrorsAboutProtectedTraffic(t *testing.T) {
	t.Parallel()
	for _, extra := range []string{"", `  encapsulation = "udp"`} {
		t.Run(map[bool]string{true: "native", false: "udp"}[extra == ""], func(t *testing.T) {
			lab.Need(t, "ping", "tcpdump")
			s := newSite(t, siteOptions{mtu: 1300, ipsec: lab.Manual{Extra: extra}, far: true})
			wire := s.wire.Capture("sw0", "not arp")
			pattern := fmt.Sprintf("%x", protectedText)
			for _, v := range []struct{ me, host string }{{"10.2.0.5", "198.51.100.77"}, {"fd00:2::5", "fd00:1::77"}} {
				ping := func(to string, args ...string) string {
					out, _ := s.far.Try(waitLong, append([]string{"ping", "-I", v.me, "-c", "3", "-i", "0.3", "-W", "2", "-p", pattern}, append(args, to)...)...)
					return out
				}
				s.far.Run("ping", "-I", v.me, "-c", "1", "-W", "5", "-e", "99", v.host)
				for what, row := range map[string]struct{ out, want string }{
					"time exceeded, flow known": {ping(v.host, "-e", "99", "-t", "1"), "exceeded"},
					"time exceeded":             {ping(v.host, "-t", "1"), ""}, // the kernel sends none about a flow that nobody has let through yet
					"too long, flow known":      {ping(v.host, "-e", "99", "-M", "do", "-s", "1360"), "1300"},
				} {
					if !strings.Contains(row.out, row.want) {
						t.Errorf("%s, %s: the sender does not hear of it:\n%s", v.me, what, row.out)
					}
				}
			}
			if n := wire.Count(leaks); n > 0 {
				t.Errorf("%d packets crossed the wire in the clear:\n%s", n, wire.Text(leaks))
			}
			if wire.Contains(protectedText) {
				t.Error("protected text was seen on the wire")
			}
			t.Log(s.g.Ask("status"))
		})
	}
}

// forge sends an ICMP "fragmentation needed" or "packet too big" of 576 or 1280
// bytes in the clear, from a router that is none.
func (s *site) forge(t *testing.T, to string, quoted packet.Spec) {
	t.Helper()
	q, err := packet.Build(quoted)
	if err != nil {
		t.Fatal(err)
	}
	p := packet.Spec{Src: netip.MustParseAddr("203.0.113.77"), Dst: netip.MustParseAddr(to), Protocol: packet.ICMP, ICMPType: 3, ICMPCode: 4, EchoSeq: 576, Payload: q[:28]}
	if p.Dst.Is6() {
		p = packet.Spec{Src: netip.MustParseAddr("2001:db8:77::7"), Dst: p.Dst, Protocol: packet.ICMPv6, ICMPType: 2, EchoSeq: 1280, Payload: q[:48]}
	}
	b, err := packet.Build(p)
	if err != nil {
		t.Fatal(err)
	}
	rawSocket(t, s.mallory, "lan0", macOf(s.mallory, "lan0"), macOf(s.gateway, "lan0")).send(t, b)
}

// Whoever says in the clear that protected packets are too long is not believed,
// neither by the gateway nor by the hosts behind it, unless policy wants it.
func TestForgedPathMTU(t *testing.T) {
	t.Parallel()
	for _, clear := range []string{"", `clear_icmp_errors = "bypass"`} {
		t.Run(map[bool]string{true: "default", false: "bypass"}[clear == ""], func(t *testing.T) {
			lab.Need(t, "ping")
			s := newSite(t, siteOptions{policy: clear, far: true})
			discarded := uint64(0)
			for _, v := range []struct{ me, host, far string }{{"192.0.2.1", "198.51.100.77", "10.2.0.5"}, {"2001:db8::1", "fd00:1::77", "fd00:2::5"}} {
				a := func(x string) netip.Addr { return netip.MustParseAddr(x) }
				far := a(v.far)
				// The flows are known, and those of a socket.
				for _, h := range []*lab.Host{s.gateway, s.lan} {
					talk(t, h, netip.AddrPortFrom(far, 5000))
				}
				s.Eventually(waitLong, "both sockets send", func() bool { return strings.Count(s.g.Ask("flows"), v.far) >= 2 })
				s.forge(t, v.me, packet.Spec{Src: a(v.me), Dst: far, Protocol: packet.UDP, SrcPort: 6000, DstPort: 5000, DontFragment: true, Payload: make([]byte, 1400)})
				s.forge(t, v.host, packet.Spec{Src: a(v.host), Dst: far, Protocol: packet.UDP, SrcPort: 6000, DstPort: 5000, DontFragment: true, Payload: make([]byte, 1400)})
				if clear != "" { // the rules say nothing of errors for others
					s.Eventually(waitLong, "a policy that believes such errors believes them", func() bool {
						return strings.Contains(s.gateway.Run("ip", "route", "get", v.far), " mtu ")
					})
					continue
				}
				s.Eventually(waitLong, "both errors were discarded", func() bool { return counted(t, s.g, "clear-error") >= discarded+2 })
				discarded += 2
				for _, h := range []*lab.Host{s.gateway, s.lan} {
					if out := h.Run("ip", "route", "get", v.far); strings.Contains(out, " mtu ") {
						t.Errorf("%s believes it:\n%s", h.Name, out)
					}
				}

			}
		})
	}
}

// talk sends from a connected UDP socket with DF, port 6000, which stays.
func talk(t *testing.T, h *lab.Host, to netip.AddrPort) {
	t.Helper()
	h.Start("/usr/bin/python3", "-c", fmt.Sprintf(`
import socket, time
s = socket.socket(socket.AF_INET6 if ":" in %q else socket.AF_INET, socket.SOCK_DGRAM)

if s.family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
s.bind(("", 6000)); s.connect((%q, %d))
while True:
    try: s.send(b"hello")
    except OSError: pass
    time.sleep(0.1)
`, to.Addr().String(), to.Addr().String(), to.Port()))
}
