package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// A child of strongSwan's may have up to 255 networks (RFC 7296 section 3.13), as the
// first of an IKE SA or as one more. Both work, and what worked before goes on.
func TestStrongSwanManyNetworks(t *testing.T) {
	t.Parallel()
	l, client, server := lab.Pair(t)
	lab.Need(t, "ping")
	client.Run("ip", "addr", "add", "10.1.0.1/32", "dev", "lo")
	client.Run("ip", "route", "add", "10.2.0.0/24", "via", "10.77.0.1")
	server.Run("ip", "addr", "add", "10.2.0.1/32", "dev", "lo")
	server.Run("ip", "route", "add", "10.1.0.0/16", "via", "10.77.0.2")
	swan := server.Charon("")
	us := &ikeHost{Host: client, name: "client", policy: swanUs(l, "10.77.0.1", `local_address = "10.1.0.0/16"`, `initiate = "never"`)}
	us.run(t)
	for _, n := range []int{64, 65, 100, 255} {
		var networks []string
		var last string // an address in the last of them
		for i := range n {
			networks = append(networks, fmt.Sprintf("10.1.%d.%d/28", 1+i/8, i%8*32))
			last = fmt.Sprintf("10.1.%d.%d", 1+i/8, i%8*32+1)
		}
		client.Run("ip", "addr", "add", last+"/32", "dev", "lo")
		at := map[string]string{"one": "10.1.0.1", "many": last}
		swan.Load(swanThem("10.77.0.1", "remote_addrs = 10.77.0.2", fmt.Sprintf(`one {
        local_ts = 10.2.0.0/24
        remote_ts = 10.1.0.0/24
      }
      many {
        local_ts = 10.2.0.0/24
        remote_ts = %s
      }`, strings.Join(networks, ", ")), ""))
		for _, order := range [][]string{{"one", "many"}, {"many", "one"}} {
			for i, child := range order {
				swan.Do("--initiate", "--child", child, "--timeout", "60")
				for _, c := range order[:i+1] {
					if out, err := us.Try(waitLong, "ping", "-n", "-c", "1", "-W", "5", "-I", at[c], "10.2.0.1"); err != nil {
						t.Errorf("%d networks, %v, %d of them up: no answer by child %s: %v\n%s", n, order, i+1, c, err, out)
					}
				}
			}
			if sas, ikes := strings.Count(us.daemon.Ask("sas", "--json"), "\n"), strings.Count(us.daemon.Ask("ike", "list", "--json"), "\n"); sas != 4 || ikes != 1 {
				t.Errorf("%d networks, %v: %d SAs of %d IKE SAs", n, order, sas, ikes)
			}
			swan.Do("--terminate", "--ike", "us")
			l.Eventually(waitLong, "nothing is left", func() bool { return us.daemon.Ask("ike", "list", "--json") == "" })
		}
	}
	if out := us.daemon.Ask("events", "--json"); strings.Contains(out, `"failed"`) {
		t.Errorf("events: %s", out)
	}
}
