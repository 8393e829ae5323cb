package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// protectAll is a policy whose two hosts protect everything between them.
const protectAll = `
policy {
  inbound  = "discard"
  outbound = "discard"
}
rule "all" {
  action         = "protect"
  with           = "peer"
  direction      = "both"
  remote_address = %q
}
`

// noBPF starts a program that may do what a firewall does, but load no BPF
// program: some kernels refuse that to everybody.
var noBPF = []string{"setpriv", "--bounding-set", "-bpf,-sys_admin"}

// noGroup starts a program that cannot take a group of its own for its sockets:
// what they send is told by a mark.
var noGroup = []string{"setpriv", "--bounding-set", "-setgid"}

// Two hosts that protect everything between them with keys set by hand: what
// programs send arrives, in every mode, family and protocol, and on the wire
// there is nothing but ESP or AH.
func TestProtectManual(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		m    lab.Manual
		v6   bool

		starter []string
	}{
		{"no-bpf-v4", lab.Manual{}, false, noBPF},
		{"no-bpf-v6", lab.Manual{Mode: "tunnel"}, true, noBPF},
		{"esp-transport-v4", lab.Manual{}, false, nil},
		{"esp-transport-v6", lab.Manual{}, true, nil},
		{"esp-tunnel-v4", lab.Manual{Mode: "tunnel"}, false, nil},
		{"esp-tunnel-v6", lab.Manual{Mode: "tunnel"}, true, nil},
		{"esp-udp-v4", lab.Manual{Extra: `  encapsulation = "udp"`}, false, nil},
		{"esp-udp-v6", lab.Manual{Extra: `  encapsulation = "udp"`}, true, nil},
		{"no-group-udp-v4", lab.Manual{Extra: `  encapsulation = "udp"`}, false, noGroup},
		{"no-group-udp-v6", lab.Manual{Extra: `  encapsulation = "udp"`}, true, noGroup},
		{"ah-transport-v4", lab.Manual{Protocol: "ah"}, false, nil},
		{"ah-tunnel-v6", lab.Manual{Protocol: "ah", Mode: "tunnel"}, true, nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			l, client, server := lab.Pair(t)
			lab.Need(t, "iperf3", "ping", "tcpdump", "setpriv")
			c, s := "10.77.0.2", "10.77.0.1"
			if row.v6 {
				c, s = "fd77::2", "fd77::1"
			}
			row.m.Local, row.m.Remote = c, s
			first, second := l.Blocks("a", row.m)
			wire := server.Capture("s0", fmt.Sprintf("host %s", c))
			a := client.IPFWUnder(row.starter, l.File("client.hcl", fmt.Sprintf(protectAll, s)+first))
			if _, byQueue := strings.CutPrefix(row.name, "no-bpf"); byQueue != strings.Contains(a.Output(), "ESP comes packet by packet") {
				t.Errorf("native ESP is to come by a queue: %v. The daemon says\n%s", byQueue, a.Output())
			}
			if _, byMark := strings.CutPrefix(row.name, "no-group"); byMark != strings.Contains(a.Output(), "no group of its own") {
				t.Errorf("what is sent is to be told by a mark: %v. The daemon says\n%s", byMark, a.Output())
			}
			server.IPFW(l.File("server.hcl", fmt.Sprintf(protectAll, c)+second))
			client.Run("ping", "-c", "3", "-i", "0.2", "-W", "2", s)
			server.Run("ping", "-c", "3", "-i", "0.2", "-W", "2", c)
			client.Run("ping", "-c", "2", "-i", "0.2", "-W", "2", "-s", "4000", s)
			server.Start("iperf3", "-s")
			l.Eventually(waitLong, "iperf3 listens", func() bool {
				out, _ := server.Try(waitLong, "ss", "-ltn")
				return strings.Contains(out, ":5201")
			})
			transfer := func() (direct int) {
				t.Log(lastLines(client.Run("iperf3", "-c", s, "-n", "20M"), 4))
				return shortcuts(t, a)
			}
			direct := transfer()
			if row.starter != nil || strings.Contains(row.name, "udp") {
				if direct > 0 {
					t.Errorf("%d datagrams took the shortcut", direct)
				}
			} else if direct == 0 { // somebody may have something in the way just then
				l.Eventually(waitLong, "datagrams take the shortcut", func() bool { return transfer() > 0 })
			}
			if n := wire.Count(clearText); n > 0 {
				t.Errorf("%d packets crossed the wire in the clear:\n%s", n, wire.Text(clearText))
			}
			if n := wire.Count("esp or ah or udp port 4500"); n < 100 {
				t.Errorf("only %d protected packets on the wire", n)
			}
			t.Log(a.Ask("status"))
		})
	}
}

// shortcuts is how many sealed datagrams of a daemon have taken the shortcut.
func shortcuts(t *testing.T, d *lab.Daemon) int {
	t.Helper()
	var s struct{ Queue struct{ Direct int } }
	if err := json.Unmarshal([]byte(d.Ask("status", "--json")), &s); err != nil {
		t.Fatal(err)
	}
	return s.Queue.Direct
}

// clearText is a filter for what is not protected: neighbour discovery is the
// one thing that may cross so. A later fragment has no header to be seen; its
// first one has.
const clearText = "not arp and not esp and not ah and not udp port 4500 and not (icmp6 and (ip6[40]=135 or ip6[40]=136)) and not (ip6 and ip6[6]=44) and not (ip[6:2]&0x1fff!=0) and not (ip6 and ip6[6]=51)"
