package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// A router with two lines, as its administrators tell each connection's line by
// the connection's mark. The mark is restored as a whole word, and the routing
// rule has no mask.
//
//	+-----+      +--------+ wan1 --- one (default route)
//	| pc  |------| router |
//	+-----+ lan  +--------+ wan2 --- two (table 102, mark 2)
//
// Both lines lead to the same server address, and only the second translates.
type lines struct {
	*lab.Lab
	pc, router, one, two *lab.Host
	fam                  lineFamily
}

// lineFamily is the addresses of one IP family.
type lineFamily struct {
	name, ip, tables          string // of the family, and programs' words for it
	lan, wan1, wan2           string // networks: the router has 1, the others 2
	len                       int
	server                    netip.Addr
	ping                      string
	private, everything, icmp string
}

var lineFamilies = []lineFamily{
	{"v4", "-4", "iptables-nft", "10.0.0.", "192.0.2.", "198.51.100.", 24, netip.MustParseAddr("203.0.113.80"), "-4", "10.0.0.0/24", "0.0.0.0/0", "icmp"},
	{"v6", "-6", "ip6tables-nft", "fd10::", "2001:db8:1::", "2001:db8:2::", 64, netip.MustParseAddr("2001:db8:3::80"), "-6", "fd10::/64", "::/0", "icmp6"},
}

func newLines(t *testing.T, fam lineFamily) *lines {
	t.Helper()
	lab.Need(t, fam.tables, "curl", "ping")
	l := &lines{Lab: lab.New(t), fam: fam}
	l.pc, l.router, l.one, l.two = l.Host("pc"), l.Host("router"), l.Host("one"), l.Host("two")
	at := func(network string, n int) []string { return []string{fmt.Sprintf("%s%d/%d", network, n, fam.len)} }
	l.Join(l.pc, "pc0", at(fam.lan, 2), l.router, "lan", at(fam.lan, 1))
	l.Join(l.router, "wan1", at(fam.wan1, 1), l.one, "one0", at(fam.wan1, 2))
	l.Join(l.router, "wan2", at(fam.wan2, 1), l.two, "two0", at(fam.wan2, 2))
	l.router.Sysctl("net.ipv4.ip_forward", "1")
	l.router.Sysctl("net.ipv6.conf.all.forwarding", "1")
	l.pc.Run("ip", fam.ip, "route", "add", "default", "via", fam.lan+"1")
	l.router.Run("ip", fam.ip, "route", "add", "default", "via", fam.wan1+"2")
	l.router.Run("ip", fam.ip, "route", "add", "default", "via", fam.wan2+"2", "table", "102")
	l.router.Run("ip", fam.ip, "route", "add", fam.private, "dev", "lan", "table", "102")
	l.router.Run("ip", fam.ip, "rule", "add", "fwmark", "2", "table", "102")
	for _, h := range []*lab.Host{l.one, l.two} {
		h.Run("ip", "addr", "add", netip.PrefixFrom(fam.server, fam.server.BitLen()).String(), "dev", "lo", "nodad")
		serveBytes(t, h, 8080)
	}
	l.tables("-t mangle -N WAN2")
	l.tables("-t mangle -A WAN2 -j MARK --set-mark 2")
	l.tables("-t mangle -A WAN2 -j CONNMARK --save-mark")
	l.tables("-t nat -A POSTROUTING -o wan1 -j MASQUERADE")
	l.tables("-t nat -A POSTROUTING -o wan2 -j MASQUERADE")
	return l
}

// tables runs iptables on the router, as its administrator writes it.
func (l *lines) tables(args string) {
	l.Helper()
	l.router.Run(append([]string{l.fam.tables, "-w"}, strings.Fields(args)...)...)
}

// serveBytes runs a web server that answers /N with N bytes.
func serveBytes(t *testing.T, h *lab.Host, port int) {
	t.Helper()
	var listen net.Listener
	if err := h.Do(func() (err error) {
		listen, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
		if err != nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(n))
		_, _ = w.Write(make([]byte, n)) // the client counts
	})}
	go func() { _ = s.Serve(listen) }()
	t.Cleanup(func() { _ = s.Close() })
}

// fetch gets n bytes by curl and says how many came, and how it ended.
func fetch(h *lab.Host, server netip.Addr, n int) error {
	out, err := h.Try(lab.Patience, "curl", "-s", "-S", "-o", "/dev/null", "-w", "%{size_download}", "--max-time", "30",
		fmt.Sprintf("http://%s/%d", netip.AddrPortFrom(server, 8080), n))
	if err == nil && out != strconv.Itoa(n) {
		err = fmt.Errorf("%s bytes of %d came", out, n)
	}
	if err != nil {
		return fmt.Errorf("curl: %s: %w", strings.TrimSpace(out), err)
	}
	return nil
}

// use sends a small file, a big one and echoes from a host by the second line.
func (l *lines) use(t *testing.T, from *lab.Host) {
	t.Helper()
	wan1 := l.router.Capture("wan1", "host "+l.fam.server.String())
	wan2 := l.router.Capture("wan2", "net "+l.fam.private)
	for _, n := range []int{100, 3_000_000} {
		if err := fetch(from, l.fam.server, n); err != nil {
			t.Error(err)
		}
	}
	if out, err := from.Try(lab.Patience, "ping", l.fam.ping, "-c", "4", "-i", "0.2", "-W", "10", l.fam.server.String()); err != nil || !strings.Contains(out, " 4 received") {
		t.Errorf("4 pings: %v\n%s", err, out)
	}
	if n := wan1.Count(""); n > 0 {
		t.Errorf("%d packets by the wrong line:\n%s", n, wan1.Text(""))
	}
	if n := wan2.Count(""); n > 0 {
		t.Errorf("%d packets leave untranslated:\n%s", n, wan2.Text(""))
	}
}

const linesPolicy = `policy {
  inbound   = "discard"
  outbound  = "bypass"
  mark_mask = %q
}
rule "lan-out" {
  action    = "bypass"
  direction = "forward"
  opened_by = "local"
  interface = "wan*"
}
`

// The bits of ipfw in the connection's mark do not lead packets astray, however
// whole words of it are restored.
func TestLinesByConnectionMark(t *testing.T) {
	for _, fam := range lineFamilies {
		t.Run(fam.name, func(t *testing.T) {
			t.Parallel()
			lab.EachOffload(t, func(t *testing.T, way string) {
				for _, mask := range []string{"0xff000000", "0xff0000"} {
					t.Run(mask, func(t *testing.T) { tryLines(t, fam, mask, way) })
				}
			})
		})
	}
}

func tryLines(t *testing.T, fam lineFamily, mask, way string) {
	policy := fmt.Sprintf(linesPolicy, mask)
	t.Run("forward", func(t *testing.T) {
		l := newLines(t, fam)
		l.tables("-t mangle -A PREROUTING -m conntrack --ctstate ESTABLISHED,RELATED -j CONNMARK --restore-mark")
		l.tables("-t mangle -A PREROUTING -i lan -m conntrack --ctstate NEW -m mark --mark 0 -j WAN2")
		l.router.Run("nft", reversePath)
		d := l.router.IPFW(l.File("mw.hcl", policy))
		l.use(t, l.pc)
		l.carried(t, d, way)
	})
	t.Run("output", func(t *testing.T) {
		l := newLines(t, fam)
		l.tables("-t mangle -A PREROUTING -m conntrack --ctstate ESTABLISHED,RELATED -j CONNMARK --restore-mark")
		l.tables("-t mangle -A OUTPUT -m conntrack --ctstate ESTABLISHED,RELATED -j CONNMARK --restore-mark")
		l.tables("-t mangle -A OUTPUT -m conntrack --ctstate NEW -m mark --mark 0 -j WAN2")
		d := l.router.IPFW(l.File("mw.hcl", policy))
		l.use(t, l.router)
		l.carried(t, d, way)
	})
	t.Run("late", func(t *testing.T) {
		l := newLines(t, fam)
		l.router.Run("nft", lateMarks)
		d := l.router.IPFW(l.File("mw.hcl", policy))
		l.use(t, l.router)
		l.use(t, l.pc)
		l.carried(t, d, way)
	})
}

// reversePath is a filter as firewalld has it, which asks for the way back by
// the packet's mark, behind those who restore it.
const reversePath = `table inet back {
	chain pre { type filter hook prerouting priority -140;
		iif lo accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
		fib saddr . mark . iif oif missing drop
	}
}`

// lateMarks does what the mangle tables do, behind the chains of ipfw.
const lateMarks = `table inet late {
	chain pre { type filter hook prerouting priority 10;
		ct state established,related meta mark set ct mark
		iifname lan ct state new meta mark 0 ct mark set ct mark | 2 meta mark set 2
	}
	chain out { type route hook output priority 10;
		ct state established,related meta mark set ct mark
		ct state new meta mark 0 ct mark set ct mark | 2 meta mark set 2
	}
}`

// carried says that the kernel has answered for most packets, if it was to.
func (l *lines) carried(t *testing.T, d *lab.Daemon, way string) {
	t.Helper()
	if up := status(t, d).Queue.Packets; way == "flow" && up > 200 {
		t.Errorf("%d packets have come up", up)
	}
}

const protectedLine = `policy {
  inbound  = "discard"
  outbound = "discard"
}
rule "own" {
  action         = "protect"
  with           = "peer"
  direction      = "both"
  remote_address = %q
}
rule "lan" {
  action         = "protect"
  with           = "peer"
  direction      = %q
  remote_address = %q
}
`

// What is sealed takes the line of its connection's mark as well, and what comes
// out of it is not taken for another's, though a chain behind ours has written
// over its mark.
func TestProtectedLinesByConnectionMark(t *testing.T) {
	for _, fam := range lineFamilies {
		for _, row := range []struct {
			name    string
			m       lab.Manual
			starter []string
		}{
			{"esp", lab.Manual{}, nil},
			{"esp-by-queue", lab.Manual{}, noBPF},
			{"udp", lab.Manual{Extra: `  encapsulation = "udp"`}, nil},
			{"ah", lab.Manual{Protocol: "ah"}, nil},
		} {
			t.Run(fam.name+"/"+row.name, func(t *testing.T) {
				t.Parallel()
				tryProtectedLine(t, fam, row.m, row.starter)
			})
		}
	}
}

func tryProtectedLine(t *testing.T, fam lineFamily, m lab.Manual, starter []string) {
	lab.Need(t, "setpriv")
	l := newLines(t, fam)
	self := map[string]string{"v4": "203.0.113.1", "v6": "2001:db8:3::1"}[fam.name]
	host := netip.MustParseAddr(self)
	l.router.Run("ip", "addr", "add", netip.PrefixFrom(host, host.BitLen()).String(), "dev", "lo", "nodad")
	l.router.Run("ip", fam.ip, "route", "replace", "default", "via", fam.wan1+"2", "src", self)
	l.router.Run("ip", fam.ip, "route", "replace", "default", "via", fam.wan2+"2", "src", self, "table", "102")
	l.two.Run("ip", fam.ip, "route", "add", "default", "via", fam.wan2+"1", "src", fam.server.String())
	serveBytes(t, l.router, 8080)
	l.tables("-t nat -F POSTROUTING")
	for _, chain := range []string{"PREROUTING", "OUTPUT"} {
		l.tables("-t mangle -A " + chain + " -m conntrack --ctstate ESTABLISHED,RELATED -j CONNMARK --restore-mark")
		l.tables("-t mangle -A " + chain + " -m conntrack --ctstate NEW -m mark --mark 0 -j WAN2")
	}
	m.Mode, m.Local, m.Remote = "tunnel", self, fam.server.String()
	first, second := l.Blocks("line", m)
	wan1 := l.router.Capture("wan1", "host "+fam.server.String())
	wan2 := l.router.Capture("wan2", "host "+fam.server.String())
	l.router.IPFWUnder(starter, l.File("router.hcl", fmt.Sprintf(protectedLine, fam.server, "forward", fam.server)+first))
	l.two.IPFW(l.File("two.hcl", fmt.Sprintf(protectedLine, self, "both", fam.private)+second))
	for _, way := range []struct {
		from *lab.Host
		to   netip.Addr
	}{{l.router, fam.server}, {l.two, host}, {l.pc, fam.server}} {
		for _, n := range []int{100, 3_000_000} {
			if err := fetch(way.from, way.to, n); err != nil {
				t.Errorf("from %s: %v", way.from.Name, err)
			}
		}
	}
	if n := wan1.Count(""); n > 0 {
		t.Errorf("%d packets by the wrong line:\n%s", n, wan1.Text(""))
	}
	if n := wan2.Count(clearText); n > 0 {
		t.Errorf("%d packets in the clear:\n%s", n, wan2.Text(clearText))
	}
}
