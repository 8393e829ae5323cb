package e2e

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// Asymmetric routes (firewalld/firewalld#1061): what a sends goes by r1, the
// answers come by r2, where ipfw runs and sees no SYN.
//
//	a (10.1.0.10) -- r1 --> b (10.2.0.10)
//	      ^-- r2 with ipfw --'
func TestHalfSeenConnections(t *testing.T) {
	for _, offload := range []string{"flow", "none"} {
		t.Run(offload, func(t *testing.T) {
			l := lab.New(t)
			a, b, r1, r2 := l.Host("a"), l.Host("b"), l.Host("r1"), l.Host("r2")
			for i, r := range []*lab.Host{r1, r2} {
				n := i + 1
				l.Join(a, fmt.Sprintf("a%d", n), []string{fmt.Sprintf("10.1.%d.2/24", n), fmt.Sprintf("fd01:%d::2/64", n)},
					r, "a0", []string{fmt.Sprintf("10.1.%d.1/24", n), fmt.Sprintf("fd01:%d::1/64", n)})
				l.Join(b, fmt.Sprintf("b%d", n), []string{fmt.Sprintf("10.2.%d.2/24", n), fmt.Sprintf("fd02:%d::2/64", n)},
					r, "b0", []string{fmt.Sprintf("10.2.%d.1/24", n), fmt.Sprintf("fd02:%d::1/64", n)})
				r.Sysctl("net.ipv4.ip_forward", "1")
				r.Sysctl("net.ipv6.conf.all.forwarding", "1")
			}
			for h, addrs := range map[*lab.Host][]string{a: {"10.1.0.10/32", "fd01::a/128"}, b: {"10.2.0.10/32", "fd02::a/128"}} {
				h.Run("ip", "addr", "add", addrs[0], "dev", "lo")
				h.Run("ip", "addr", "add", addrs[1], "dev", "lo", "nodad")
			}
			route := func(h *lab.Host, args ...string) {
				t.Helper()
				l.Eventually(waitLong, fmt.Sprint("a route ", args), func() bool { // addresses are there a moment later
					_, err := h.Try(waitLong, append([]string{"ip", "route", "replace"}, args...)...)
					return err == nil
				})
			}
			route(a, "10.2.0.10", "via", "10.1.1.1", "src", "10.1.0.10")
			route(a, "fd02::a", "via", "fd01:1::1", "src", "fd01::a")
			route(r1, "10.2.0.10", "via", "10.2.1.2")
			route(r1, "fd02::a", "via", "fd02:1::2")
			route(b, "10.1.0.10", "via", "10.2.2.1", "src", "10.2.0.10")
			route(b, "fd01::a", "via", "fd02:2::1", "src", "fd02::a")
			route(r2, "10.1.0.10", "via", "10.1.2.2")
			route(r2, "fd01::a", "via", "fd01:2::2")
			if err := b.Do(func() error { return lab.Serve(80) }); err != nil {
				t.Fatal(err)
			}
			get := func(limit time.Duration, to string) error {
				return a.Do(func() error {
					return lab.Transfer{Network: "tcp", To: netip.MustParseAddrPort(to), Size: 2 << 20, Limit: limit}.Do()
				})
			}
			ends := []string{"10.2.0.10:80", "[fd02::a]:80"}
			for _, to := range ends { // the control
				if err := get(waitLong, to); err != nil {
					t.Fatalf("without ipfw: %v", err)
				}
			}
			policy := func(block, rule string) string {
				return l.File("r2.hcl", fmt.Sprintf("policy {\n  inbound  = \"discard\"\n  outbound = \"bypass\"\n  offload  = %q\n  %s\n}\nrule \"through\" {\n  action        = \"bypass\"\n  direction     = \"forward\"\n  opened_by     = \"local\"\n  local_address = [\"10.1.0.0/16\", \"fd01::/32\"]\n  %s\n}\n", offload, block, rule))
			}
			d := r2.IPFW(policy("", ""))
			for _, to := range ends {
				if err := get(2*time.Second, to); err == nil {
					t.Errorf("%s: an answer without a question passes", to)
				}
			}
			for _, p := range [][2]string{{"", `half_open = "bypass"`}, {`half_open = "bypass"`, ""}} {
				policy(p[0], p[1])
				d.Ask("reload")
				for _, to := range ends {
					if err := get(waitLong, to); err != nil {
						t.Errorf("%s with %v: %v", to, p, err)
					}
				}
			}
			// It is for this rule's connections alone: nobody may answer into the
			// other direction, which the rule lets nobody open.
			policy("", "half_open = \"bypass\"\n  protocol = \"tcp\"\n  remote_port = 81")
			d.Ask("reload")
			for _, to := range ends {
				if err := get(2*time.Second, to); err == nil {
					t.Errorf("%s: passes by a rule for another port", to)
				}
			}
		})
	}
}
