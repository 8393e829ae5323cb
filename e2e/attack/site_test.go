package attack

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// family is the addresses of one IP family.
//
//	lan host ---- lan0 gateway wan0 ---- w0 outside     (the far end of the tunnel, and the attacker)
//	lanHost     lanSelf       self          far, and inner behind it
type family struct {
	name                                    string
	self, far, stranger                     netip.Addr
	lanSelf, lanHost, lanNobody, inner      netip.Addr
	lanNet, innerNet, wanBits, lanBits, all string
	loopback                                netip.Addr
}

var (
	v4 = family{
		name: "v4", all: "0.0.0.0/0", loopback: netip.MustParseAddr("127.0.0.1"),
		self: netip.MustParseAddr("192.0.2.1"), far: netip.MustParseAddr("192.0.2.2"), stranger: netip.MustParseAddr("203.0.113.77"),
		lanSelf: netip.MustParseAddr("198.51.100.1"), lanHost: netip.MustParseAddr("198.51.100.77"), lanNobody: netip.MustParseAddr("198.51.100.99"),
		inner: netip.MustParseAddr("10.2.0.5"), lanNet: "198.51.100.0/24", innerNet: "10.2.0.0/16", wanBits: "/24", lanBits: "/24",
	}
	v6 = family{
		name: "v6", all: "::/0", loopback: netip.MustParseAddr("::1"),
		self: netip.MustParseAddr("2001:db8::1"), far: netip.MustParseAddr("2001:db8::2"), stranger: netip.MustParseAddr("2001:db8:f::77"),
		lanSelf: netip.MustParseAddr("fd00:1::1"), lanHost: netip.MustParseAddr("fd00:1::77"), lanNobody: netip.MustParseAddr("fd00:1::99"),
		inner: netip.MustParseAddr("fd00:2::5"), lanNet: "fd00:1::/64", innerNet: "fd00:2::/64", wanBits: "/64", lanBits: "/64",
	}
)

// any is the unspecified address with a port.
func (v *family) any(port uint16) netip.AddrPort {
	a := netip.IPv4Unspecified()
	if v.name == "v6" {
		a = netip.IPv6Unspecified()
	}
	return netip.AddrPortFrom(a, port)
}

// at gives an address with a port.
func at(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

// site is the gateway under attack, a host of its LAN, and the outside.
type site struct {
	*lab.Lab
	v                    *family
	gateway, lan, beyond *lab.Host
	wan                  *wire // at the outside's end
	daemon               *lab.Daemon
}

// newSite makes the hosts. What is not the gateway's own goes outside.
func newSite(t testing.TB, v *family) *site {
	t.Helper()
	l := lab.New(t)
	s := &site{Lab: l, v: v, gateway: l.Host("gateway"), lan: l.Host("lan"), beyond: l.Host("outside")}
	l.Join(s.gateway, "wan0", []string{v.self.String() + v.wanBits}, s.beyond, "w0", []string{v.far.String() + v.wanBits})
	l.Join(s.gateway, "lan0", []string{v.lanSelf.String() + v.lanBits}, s.lan, "l0", []string{v.lanHost.String() + v.lanBits})
	s.gateway.Run("sh", "-c", fmt.Sprintf(`set -e
		ip route add default via %[1]s
		for f in ipv4/ip_forward ipv6/conf/all/forwarding; do echo 1 >/proc/sys/net/$f; done
		for d in all default wan0 lan0; do echo 0 >/proc/sys/net/ipv4/conf/$d/rp_filter; done
		echo 0 >/proc/sys/net/ipv4/icmp_ratelimit; echo 0 >/proc/sys/net/ipv6/icmp/ratelimit
		`, v.far))
	s.lan.Run("ip", "route", "add", "default", "via", v.lanSelf.String())
	// The kernel outside answers for nobody: the attacker speaks for himself.
	s.beyond.Run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/icmp_echo_ignore_all")
	s.wan = tap(t, s.beyond, "w0", s.gateway, "wan0")
	return s
}

// run starts the daemon on the gateway with a policy's text. If the test fails,
// it shows what the daemon has said.
func (s *site) run(policy string, args ...string) *lab.Daemon {
	s.Helper()
	s.daemon = s.gateway.IPFW(s.File("gateway/policy.hcl", policy), args...)
	d := s.daemon
	s.Cleanup(func() {
		if s.Failed() {
			out := d.Output()
			s.Logf("the daemon:\n%s", out[max(0, len(out)-1200):])
		}
	})
	return d
}

// way is how a tunnel with keys set by hand carries packets.
type way struct {
	mode, protocol string // transport or tunnel, esp or ah
	udp            bool
	offload        string
	window         int // replay window
}

var native = way{mode: "tunnel", protocol: "esp"}

func (w way) String() string {
	parts := []string{w.protocol, w.mode}
	if w.udp {
		parts = append(parts, "udp")
	}
	if w.offload != "" {
		parts = append(parts, w.offload)
	}
	return strings.Join(parts, " ")
}

// closed is the policy block of most tests.
func closed(w way) string {
	offload := ""
	if w.offload != "" {
		offload = fmt.Sprintf("  offload = %q\n", w.offload)
	}
	return "policy {\n  inbound  = \"discard\"\n  outbound = \"discard\"\n  log_rate = 20\n" + offload + "}\n"
}

// gatewayRules protect everything with the far network, forwarded and the
// gateway's own.
func (v *family) gatewayRules() string {
	return fmt.Sprintf(`
rule "offices" {
  action         = "protect"
  with           = "peer"
  direction      = "forward"
  local_address  = %q
  remote_address = %q
}
rule "gateway" {
  action         = "protect"
  with           = "peer"
  direction      = "both"
  remote_address = %q
}
`, v.lanNet, v.innerNet, v.innerNet)
}

// until waits at most so long and says whether it has come.
func until(t testing.TB, limit time.Duration, ok func() bool) bool {
	t.Helper()
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return true
		}
	}
	return ok()
}
