package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// What `ipfw pki bundle --for ipfw` makes is all that a second ipfw host needs: with
// nothing but that folder it gets an address, and reaches what is behind the gateway.
func TestCertificatesForASecondIPFW(t *testing.T) {
	lab.Need(t, "ping", "tcpdump")
	l, road, gateway := lab.Pair(t)
	g, folder, _ := bundleGateway(t, l, gateway, "ipfw", false)
	g.run(t)
	road.Run("ip", "route", "add", "default", "via", "10.77.0.1")
	road.Run("ip", "-6", "route", "add", "default", "via", "fd77::1")
	wire := gateway.Capture("s0", "host 10.77.0.2 or net 10.99.0.0/24 or net fd99::/64")
	d := road.IPFW(filepath.Join(folder, "ipfw.hcl"))
	for _, to := range []string{"10.1.0.1", "fd01::1"} {
		l.Eventually(waitLong, to+" answers", func() bool {
			_, err := road.Try(waitLong, "ping", "-c", "2", "-i", "0.2", "-W", "2", to)
			return err == nil
		})
	}
	if out := g.daemon.Ask("ike", "list", "--json"); !strings.Contains(out, `"remote_id":"ann@example.org"`) || !strings.Contains(out, `"leased":["10.99.0.2"`) {
		t.Errorf("the gateway says %s\nand the caller %s", out, d.Ask("events"))
	}
	sealed(t, wire)
}
