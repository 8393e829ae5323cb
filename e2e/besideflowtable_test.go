//go:build guest

package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// flowtable is one of others, which takes every flow that is forwarded between two
// devices past the forward hook as soon as packets of both sides have crossed it.
func flowtable(t *testing.T, l *lab.Lab, h *lab.Host, priority string, devices ...string) {
	t.Helper()
	file := l.File("flowtable.nft", fmt.Sprintf(`table inet fast {
  flowtable ft { hook ingress priority filter; devices = { %s }; }
  chain forward { type filter hook forward priority %s; policy accept; meta l4proto { tcp, udp } counter flow add @ft; }
}
`, strings.Join(devices, ", "), priority))
	if out, err := h.Try(waitLong, "nft", "-f", file); err != nil {
		t.Skip("this kernel has not flowtables (CONFIG_NFT_FLOW_OFFLOAD): " + strings.TrimSpace(out))
	}
}

// crossed counts the TCP and UDP packets that have crossed the forward hook there.
func crossed(h *lab.Host) (n int) {
	rules := h.Run("nft", "list", "chain", "inet", "fast", "forward")
	if _, after, ok := strings.Cut(rules, "counter packets "); ok {
		_, _ = fmt.Sscan(after, &n)
	}
	return n
}

// A flowtable beside ipfw: what ipfw lets through it carries past ipfw, and ipfw
// says so; what ipfw discards it never gets.
func TestBesideFlowtable(t *testing.T) {
	t.Parallel()
	for _, priority := range []string{"filter - 10", "filter + 10"} {
		t.Run(priority, func(t *testing.T) {
			t.Parallel()
			b := besideBox(t, "br0")
			flowtable(t, b.Lab, b.server, priority, "s0", "br0")
			before := b.rules()
			b.start()
			var live []*session
			for _, to := range ports(80, "172.17.0.2", "fd72::2") {
				live = append(live, mustOpen(t, b.client, to))
			}
			b.Eventually(waitLong, "the flowtable carries them past the forward hook", func() bool {
				was := crossed(b.server)
				return live[0].moves(waitLong) && live[1].moves(waitLong) && crossed(b.server) == was && was > 0
			})
			b.crosses("beside a flowtable", ports(80, "172.17.0.2", "fd72::2"), ports(81, "172.17.0.2", "fd72::2"))
			if out := b.status(); !strings.Contains(out, "ft of table fast (br0, s0)") {
				t.Errorf("status does not tell of the flowtable:\n%s", out)
			}
			// A policy that cuts them cannot be sure to (README's limits), but nothing
			// new passes.
			b.File("server/policy.hcl", strings.Replace(b.serverPolicy, `opened_by     = "remote"`, `opened_by     = "local"`, 1))
			b.b.Ask("reload")
			for i, s := range live {
				t.Logf("session %d, which policy now discards, goes on: %v", i, s.moves(3*time.Second))
			}
			for _, to := range ports(80, "172.17.0.2", "fd72::2") {
				if b.connects(netip.MustParseAddrPort(to)) {
					t.Errorf("%s can be opened anew", to)
				}
			}
			b.ends(before)
		})
	}
}

// What goes through a tunnel is carried past by no flowtable, neither sealed nor
// in the clear.
func TestBesideFlowtableOfTunnel(t *testing.T) {
	t.Parallel()
	lab.Need(t, "tcpdump")
	for way, ipsec := range map[string]lab.Manual{"native": {}, "udp": {Extra: `  encapsulation = "udp"`}} {
		for _, priority := range []string{"filter - 10", "filter + 10"} {
			t.Run(way+" "+priority, func(t *testing.T) {
				t.Parallel()
				s := newSite(t, siteOptions{far: true, ipsec: ipsec})
				flowtable(t, s.Lab, s.gateway, priority, "lan0", "a0")
				for _, h := range []*lab.Host{s.lan, s.far} {
					if err := h.Do(func() error { return lab.Serve(7) }); err != nil {
						t.Fatal(err)
					}
				}
				wire := s.wire.Capture("sw0", "net 10.2.0.0/16 or net fd00:2::/64")
				s.works(t, "with a flowtable")
				if n := wire.Count(""); n > 0 {
					t.Errorf("%d packets in the clear on the wire:\n%s", n, wire.Text(""))
				}
			})
		}
	}
}
