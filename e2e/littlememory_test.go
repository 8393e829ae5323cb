package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// A daemon on a host with 256 MB and one processor takes about half of that for 2,000
// tunnels, also while it reads their policy anew, without anybody's GOMEMLIMIT. Who
// sets one has that.
func TestLittleMemory(t *testing.T) {
	for _, tt := range []struct {
		limit  string // GOMEMLIMIT
		little bool
	}{
		{"", true},
		{"1GiB", false},
	} {
		t.Run("GOMEMLIMIT="+tt.limit, func(t *testing.T) {
			l, _, server := lab.Pair(t)
			l.File("psk", "the tunnels' own secret, and long\n")
			var policy strings.Builder
			policy.WriteString("policy {\n  inbound = \"discard\"\n  outbound = \"discard\"\n  forward = \"discard\"\n}\n")
			for i := range 2000 {
				a := fmt.Sprintf("%d.%d", i/250, i%250+1)
				fmt.Fprintf(&policy, "rule \"t%d\" {\n  action = \"protect\"\n  with = \"t%[1]d\"\n  direction = \"forward\"\n  local_address = \"198.51.100.0/24\"\n  remote_address = \"10.64.%s\"\n}\n"+
					"ipsec \"t%[1]d\" {\n  mode = \"tunnel\"\n  ike = \"t%[1]d\"\n}\n"+
					"ike \"t%[1]d\" {\n  local_endpoint = \"10.77.0.1\"\n  remote_endpoint = \"10.32.%[2]s\"\n  local_id = \"gateway.example\"\n  remote_id = \"c%[1]d.example\"\n  psk_file = \"psk\"\n}\n", i, a)
			}
			t.Setenv("GOMAXPROCS", "1")
			t.Setenv("GOMEMLIMIT", tt.limit)
			d := server.IPFWUnder(l.LittleMemory(256), l.File("policy.hcl", policy.String()))
			for range 3 {
				d.Ask("reload")
			}
			peak := lab.PeakMemory(t, d.Cmd.Process.Pid)
			t.Logf("at most %.1f MB", float64(peak)/1024)
			if is := peak < 135<<10; is != tt.little {
				t.Errorf("ipfw has taken %d kB; below 135 MB: want %v", peak, tt.little)
			}
		})
	}
}
