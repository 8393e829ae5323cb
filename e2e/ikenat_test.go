package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// Two clients behind one NAT speak with a server in transport mode at the same
// time: each has the answers to its own packets, also after rekeys.
//
//	first  10.77.1.2 --- 10.77.1.254 nat 10.77.2.254 --- 10.77.2.1 server
//	second 10.77.3.2 --- 10.77.3.254 |
func TestIKETwoBehindNAT(t *testing.T) {
	t.Parallel()
	l, first, nat, server := natLab(t)
	second := l.Host("second")
	l.Join(second, "d0", []string{"10.77.3.2/24"}, nat, "n2", []string{"10.77.3.254/24"})
	second.Run("ip", "route", "add", "default", "via", "10.77.3.254")
	l.RawKeys(false, "first", "second", "server")
	wire := server.Capture("s0", "host 10.77.2.254")
	b := &ikeHost{Host: server, name: "server", policy: l.File("server/policy.hcl", `
policy {
  inbound  = "discard"
  outbound = "discard"
}
rule "callers" {
  action    = "protect"
  with      = "callers"
  direction = "both"
}
ipsec "callers" {
  mode = "transport"
  ike  = "callers"
}
ike "callers" {
  local_id    = "server"
  public_keys = "peers/"
  private_key = "own.key"
}
`)}
	client := func(h *lab.Host, name, addr string) *ikeHost {
		return &ikeHost{Host: h, name: name, policy: l.File(name+"/policy.hcl", ikePolicy("transport", "esp", name, addr, "server", "10.77.2.1", rawKeys))}
	}
	clients := []*ikeHost{client(first, "first", "10.77.1.2"), client(second, "second", "10.77.3.2")}
	b.run(t)
	for i, c := range clients {
		c.run(t)
		c.Run("ping", "-c", "2", "-i", "0.2", "-W", "5", "-e", fmt.Sprint(1000+i), "10.77.2.1")
	}
	both := func() {
		t.Helper()
		var load []*lab.Process
		for i, c := range clients {
			load = append(load, c.Start("ping", "-q", "-c", "100", "-i", "0.01", "-W", "5", "-e", fmt.Sprint(2000+i), "10.77.2.1"))
		}
		for i, p := range load {
			if err := p.Wait(2 * waitLong); err != nil || !strings.Contains(p.Output(), " 0% packet loss") {
				t.Errorf("%s: %v\n%s\n%s", clients[i].name, err, p.Output(), b.daemon.Ask("status"))
			}
		}
	}
	both()
	clients[0].daemon.Ask("ike", "rekey", "peer")
	b.daemon.Ask("ike", "rekey", "callers")
	both()
	sealed(t, wire)
}
