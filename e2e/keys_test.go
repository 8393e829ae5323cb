package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// What `ipfw sas --wireshark-keys` prints is what Wireshark reads the capture
// by, with keys set by hand and with keys from IKE; and the daemon tells that
// somebody asked. `ipfw sas` without it shows no key.
func TestWiresharkKeys(t *testing.T) {
	t.Parallel()
	lab.Need(t, "tshark", "ping")
	const client4, server4 = "10.77.0.2", "10.77.0.1"
	for _, keys := range []string{"manual", "ike", "ike native"} {
		t.Run(keys, func(t *testing.T) {
			l, client, server := lab.Pair(t)
			var a, b string
			if keys != "manual" {
				proto := strings.Replace(keys, "ike", "esp", 1)
				l.RawKeys(false, "client", "server")
				a = l.File("client/policy.hcl", ikePolicy("transport", proto, "client", client4, "server", server4, rawKeys))
				b = l.File("server/policy.hcl", ikePolicy("transport", proto, "server", server4, "client", client4, rawKeys))
			} else {
				first, second := l.Blocks("a", lab.Manual{Local: client4, Remote: server4})
				a = l.File("client.hcl", fmt.Sprintf(protectAll, server4)+first)
				b = l.File("server.hcl", fmt.Sprintf(protectAll, client4)+second)
			}
			wire := server.Capture("s0", "esp or udp port 4500")
			client.IPFW(a)
			d := server.IPFW(b)
			client.Run("ping", "-c", "3", "-i", "0.2", "-W", "5", "-p", "6970667764656d6f", server4)
			var rows, warning []string
			for line := range strings.Lines(d.Ask("sas", "--wireshark-keys=4.0")) {
				if strings.HasPrefix(line, `"IPv4",`) {
					rows = append(rows, strings.TrimSpace(line))
				} else {
					warning = append(warning, line)
				}
			}
			if len(rows) != 2 || len(warning) != 1 || !strings.Contains(warning[0], "can read and forge") {
				t.Fatalf("rows %q, warning %q", rows, warning)
			}
			file := wire.Stop()
			read := []string{"tshark", "-r", file, "-o", "esp.enable_encryption_decode:TRUE", "-o", "esp.enable_authentication_check:TRUE"}
			for _, row := range rows {
				read = append(read, "-o", "uat:esp_sa:"+row)
			}
			read = append(read, "-Y", "icmp.type == 8 && data contains 69:70:66:77:64:65:6d:6f", "-T", "fields", "-e", "icmp.seq")
			if out := client.Run(read...); len(strings.Fields(lastLines(out, 3))) != 3 {
				t.Errorf("tshark read %q, want three pings", out)
			}
			if events := d.Ask("events"); !strings.Contains(events, "the keys of 2 SAs were asked for") {
				t.Errorf("no event tells that keys were given out:\n%s", events)
			}
			all := d.Ask("sas", "-v") + d.Ask("sas", "--json") + d.Ask("status", "--json") + d.Ask("events", "--json", "-n", "1000") + d.Output()
			for _, row := range rows {
				for _, field := range strings.Split(row, ",") {
					if key := strings.Trim(field, `"`); strings.HasPrefix(key, "0x") && len(key) > 20 && strings.Contains(all, key[2:]) {
						t.Error("a key is shown where it was not asked for")
					}
				}
			}
		})
	}
}
