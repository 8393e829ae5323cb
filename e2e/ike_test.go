package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// ikePolicy protects everything between two hosts with keys that they agree on.
func ikePolicy(mode, proto, self, selfAddr, peer, peerAddr, more string) string {
	ends := ""
	if mode == "tunnel" {
		ends = fmt.Sprintf("  local_address  = %q\n", selfAddr)
	}
	proto, native := strings.CutSuffix(proto, " native") // not in UDP, as two ipfw hosts would have it
	if native {
		proto += "\"\n  encapsulation = \"none"
	}
	return fmt.Sprintf(`
policy {
  inbound  = "discard"
  outbound = "discard"
}
rule "all" {
  action         = "protect"
  with           = "peer"
  direction      = "both"
  remote_address = %q
%s}
ipsec "peer" {
  mode     = %q
  protocol = "%s"
  ike      = %q
}
ike %q {
  remote_endpoint = %q
  local_id        = %q
%s}
`, peerAddr, ends, mode, proto, peer, peer, peerAddr, self, more)
}

const rawKeys = `
  public_keys = "peers/"
  private_key = "own.key"
`

// Two hosts agree on keys when the first packet needs them. That packet is not
// lost, and nothing crosses the wire in the clear.
func TestIKEFirstPacket(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, mode, proto, client, server string
	}{
		{"transport-v4", "transport", "esp native", "10.77.0.2", "10.77.0.1"},
		{"transport-v6", "transport", "esp", "fd77::2", "fd77::1"},
		{"transport-v6-native", "transport", "esp native", "fd77::2", "fd77::1"},
		{"tunnel-v4", "tunnel", "esp", "10.77.0.2", "10.77.0.1"},
		{"tunnel-v6", "tunnel", "esp native", "fd77::2", "fd77::1"},
		{"ah-transport-v4", "transport", "ah", "10.77.0.2", "10.77.0.1"},
	} {
		t.Run(row.name, func(t *testing.T) {
			l, client, server := lab.Pair(t)
			lab.Need(t, "ping", "tcpdump")
			l.RawKeys(row.name == "tunnel-v6", "client", "server")
			wire := server.Capture("s0", "host "+row.client)
			a := client.IPFW(l.File("client/policy.hcl", ikePolicy(row.mode, row.proto, "client", row.client, "server", row.server, rawKeys)))
			b := server.IPFW(l.File("server/policy.hcl", ikePolicy(row.mode, row.proto, "server", row.server, "client", row.client, rawKeys)))
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("client:\n%s\nserver:\n%s", a.Output(), b.Output())
				}
			})
			client.Run("ping", "-c", "1", "-W", "5", row.server)
			server.Run("ping", "-c", "3", "-i", "0.2", "-W", "2", row.client)
			if n := wire.Count(clearText + " and not udp port 500"); n > 0 {
				t.Errorf("%d packets crossed the wire in the clear:\n%s", n, wire.Text(clearText+" and not udp port 500"))
			}
			if n := wire.Count("esp or ah"); (n < 8) != (row.proto == "esp") {
				t.Errorf("%d packets of native ESP or AH on the wire", n)
			}
			if n := wire.Count("udp port 4500"); n < 8 && row.proto == "esp" {
				t.Errorf("only %d packets of ESP in UDP on the wire", n)
			}
		})
	}
}
