package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// A link on the way that is narrower than those at both ends: its router says
// so about the sealed packets, the SA takes note, and what programs send fits
// from then on. A report about a packet that was never sent changes nothing.
//
//	client 10.77.1.2 -- 1500 -- router -- 1300 -- router2 -- 1500 -- server 10.77.2.1
func TestPathMTU(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		m    lab.Manual
		v6   bool
	}{
		{"tunnel-v4", lab.Manual{Mode: "tunnel", Extra: "  outer {\n    df = \"set\"\n  }"}, false},
		{"transport-v4", lab.Manual{}, false},
		{"udp-v4", lab.Manual{Mode: "tunnel", Extra: "  encapsulation = \"udp\"\n  outer {\n    df = \"set\"\n  }"}, false},
		{"tunnel-v6", lab.Manual{Mode: "tunnel"}, true},
		{"ah-transport-v6", lab.Manual{Mode: "transport", Protocol: "ah"}, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := lab.New(t)
			client, near, far, server := l.Host("client"), l.Host("near"), l.Host("far"), l.Host("server")
			l.Join(client, "c0", []string{"10.77.1.2/24", "fd77:1::2/64"}, near, "n0", []string{"10.77.1.1/24", "fd77:1::1/64"})
			l.Join(near, "n1", []string{"10.77.3.1/24", "fd77:3::1/64"}, far, "f1", []string{"10.77.3.2/24", "fd77:3::2/64"})
			l.Join(far, "f0", []string{"10.77.2.2/24", "fd77:2::2/64"}, server, "s0", []string{"10.77.2.1/24", "fd77:2::1/64"})
			for _, h := range []*lab.Host{near, far} {
				h.Sysctl("net.ipv4.ip_forward", "1")
				h.Sysctl("net.ipv6.conf.all.forwarding", "1")
			}
			near.Run("ip", "link", "set", "n1", "mtu", "1300")
			far.Run("ip", "link", "set", "f1", "mtu", "1300")
			for _, r := range []struct {
				h   *lab.Host
				via string
			}{{client, "77:1::1"}, {near, "77:3::2"}, {far, "77:3::1"}, {server, "77:2::2"}} {
				n, last := r.via[3], r.via[len(r.via)-1]
				r.h.Run("ip", "route", "add", "default", "via", fmt.Sprintf("10.77.%c.%c", n, last))
				r.h.Run("ip", "-6", "route", "add", "default", "via", "fd"+r.via)
			}
			c, s, url := "10.77.1.2", "10.77.2.1", "http://10.77.2.1/big"
			if row.v6 {
				c, s, url = "fd77:1::2", "fd77:2::1", "http://[fd77:2::1]/big"
			}
			row.m.Local, row.m.Remote = c, s
			first, second := l.Blocks("a", row.m)
			startNginx(t, l, server, 80)
			big(l, "www/big", 4<<20)
			d := client.IPFW(l.File("client.hcl", fmt.Sprintf(protectAll, s)+first))
			e := server.IPFW(l.File("server.hcl", fmt.Sprintf(protectAll, c)+second))
			if got := client.Run("sh", "-c", "curl -s -g -m 40 '"+url+"' | sha256sum"); got != sum(l, "www/big") {
				t.Errorf("the file did not come whole: %s\n%s", got, e.Ask("status"))
			}
			// The server sent the large packets, so its SA knows of the link.
			if out := e.Ask("sas", "--json"); !strings.Contains(out, `"path_mtu":1300`) {
				t.Errorf("the server's SA did not learn the path MTU:\n%s", out)
			}
			if out := d.Ask("sas", "--json"); strings.Contains(out, `"path_mtu":1`) && !strings.Contains(out, `"path_mtu":1300`) {
				t.Errorf("the client's SA learnt something else:\n%s", out)
			}
			if row.v6 {
				return // the host is the source, which may cut up
			}
			// With DF, a program hears of it too.
			client.Run("ping", "-c", "1", "-W", "2", "-M", "do", "-s", "1000", s)
			_, _ = client.Try(waitLong, "ping", "-c", "2", "-i", "0.3", "-W", "1", "-M", "do", "-s", "1400", s)
			out, err := client.Try(waitLong, "ping", "-c", "1", "-W", "2", "-M", "do", "-s", "1400", s)
			if err == nil || !strings.Contains(strings.ToLower(out), "too long") && !strings.Contains(out, "mtu") {
				t.Errorf("a ping that does not fit with DF: nobody said so:\n%s", out)
			}
		})
	}
}

// Behind the far gateway lies a link that carries less than the tunnel. Its
// error comes back sealed, and from then on a server's segments fit it, also
// those that the kernel hands over many in one packet.
func TestNarrowNetworkBehindTheTunnel(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		m    lab.Manual
	}{{"native", lab.Manual{Mode: "tunnel"}}, {"udp", lab.Manual{Mode: "tunnel", Extra: `  encapsulation = "udp"`}}} {
		t.Run(row.name, func(t *testing.T) {
			s := newSite(t, siteOptions{mtu: 1300, ipsec: row.m, far: true})
			startNginx(t, s.Lab, s.far, 80)
			big(s.Lab, "www/big", 8<<20)
			for _, server := range []string{"10.2.0.5", "[fd00:2::5]"} {
				if got := s.lan.Run("sh", "-c", "curl -s -g -m 60 'http://"+server+"/big' | sha256sum"); got != sum(s.Lab, "www/big") {
					t.Errorf("from %s the file did not come whole: %s\n%s", server, got, s.f.Ask("status"))
				}
			}
		})
	}
}
