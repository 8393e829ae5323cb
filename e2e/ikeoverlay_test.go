package e2e

import (
	"os"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// An overlay (VXLAN, whose datagrams come from other ports than they go to) under
// transport mode, as container networks have it: both ends want the SAs at once, end and
// begin them at the same moment, and send at the same moment. Nothing is lost for good,
// one pair is left, and while a daemon is away nothing crosses in the clear.
func TestOverlayBothEndsCall(t *testing.T) {
	t.Parallel()
	l, a, b := ikePair(t, "transport", false, "  initiate = \"start\"\n")
	lab.Need(t, "ping", "tcpdump")
	wire := b.Capture("s0", "host "+a.addr)
	for _, h := range []*ikeHost{a, b} {
		text, err := os.ReadFile(h.policy)
		if err != nil {
			t.Fatal(err)
		}
		l.File(h.name+"/policy.hcl", string(text)+"rule \"overlay\" {\n  action    = \"bypass\"\n  direction = \"both\"\n  interface = \"vx0\"\n}\n")
		h.run(t)
	}
	for h, x := range map[*ikeHost][3]string{a: {"c0", b.addr, "10.9.0.2/24"}, b: {"s0", a.addr, "10.9.0.1/24"}} {
		h.Run("ip", "link", "add", "vx0", "type", "vxlan", "id", "7", "dev", x[0], "remote", x[1], "dstport", "4789")
		h.Run("ip", "addr", "add", x[2], "dev", "vx0")
		h.Run("ip", "link", "set", "vx0", "up", "mtu", "1300")
	}
	over := func() bool {
		_, err := a.Try(waitLong, "ping", "-c", "1", "-W", "1", "10.9.0.1")
		return err == nil
	}
	l.Eventually(waitLong, "the overlay carries", over)
	for range 4 {
		for _, what := range []string{"terminate", "initiate", "ping"} {
			var both []*lab.Process
			for h, x := range map[*ikeHost][2]string{a: {"server", "10.9.0.1"}, b: {"client", "10.9.0.2"}} {
				both = append(both, h.Start(map[string][]string{
					"terminate": {lab.Binary(t), "ike", "terminate", x[0], "--socket", h.daemon.Socket},
					"initiate":  {lab.Binary(t), "ike", "initiate", "peer", "--socket", h.daemon.Socket},
					"ping":      {"ping", "-c", "3", "-i", "0.2", "-W", "5", x[1]},
				}[what]...))
			}
			for _, p := range both {
				_ = p.Wait(waitLong) // one may find that the other was first
			}
		}
		l.Eventually(waitLong, "the overlay carries again", over)
	}
	l.Eventually(2*waitLong, "one pair of SAs on each side", func() bool {
		return strings.Count(a.daemon.Ask("sas", "--json"), "\n") == 2 && strings.Count(b.daemon.Ask("sas", "--json"), "\n") == 2
	})
	a.daemon.Kill()
	if _, err := a.Try(waitLong, "ping", "-c", "3", "-i", "0.2", "-W", "1", "10.9.0.1"); err == nil {
		t.Error("the overlay carries without a daemon")
	}
	if n := wire.Count("udp port 4789"); n > 0 {
		t.Errorf("%d packets of the overlay in the clear:\n%s", n, wire.Text("udp port 4789"))
	}
}
