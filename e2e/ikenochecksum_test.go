package e2e

import (
	"fmt"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// What strongSwan sends from UDP port 4500, ESP and IKE, has no checksum, as some hosts
// send it and translators leave it (RFC 3948 section 2.2, RFC 6935). All of it arrives,
// over IPv4 and over IPv6.
func TestStrongSwanWithoutChecksums(t *testing.T) {
	t.Parallel()
	for _, x := range []struct{ family, us, them, bare, checked string }{
		{"ip", "10.77.0.2", "10.77.0.1", "udp src port 4500 and udp[6:2] = 0", "udp src port 4500 and udp[6:2] != 0"},
		{"ip6", "fd77::2", "fd77::1", "ip6 and udp src port 4500 and ip6[46:2] = 0", "ip6 and udp src port 4500 and ip6[46:2] != 0"},
	} {
		t.Run(x.family, func(t *testing.T) {
			l, client, server := lab.Pair(t)
			lab.Need(t, "nft", "ping", "tcpdump")
			client.Run("ip", "addr", "add", "10.1.0.1/32", "dev", "lo")
			client.Run("ip", "route", "add", "10.2.0.0/24", "via", "10.77.0.1")
			server.Run("ip", "addr", "add", "10.2.0.1/32", "dev", "lo")
			server.Run("ip", "route", "add", "10.1.0.0/24", "via", "10.77.0.2")
			// The kernel computes it before the hook, and nobody after it.
			if err := server.Do(func() error { return switchOff("s0", txChecksums) }); err != nil {
				t.Fatal(err)
			}
			server.Run("nft", fmt.Sprintf("add table %[1]s t; add chain %[1]s t out { type filter hook postrouting priority 300; }; add rule %[1]s t out udp sport 4500 udp checksum set 0", x.family))
			swan := server.Charon("")
			swan.Load(swanThem(x.them, "", "net {\n        local_ts = 10.2.0.0/24\n        remote_ts = 10.1.0.0/24\n      }", ""))
			us := &ikeHost{Host: client, name: "client", policy: swanUs(l, x.them, `local_address = "10.1.0.0/24"`, "")}
			us.run(t)
			wire := client.Capture("c0", "src host "+x.them)
			// strongSwan's ESP may keep the last ones until further ones come.
			out, err := us.Try(waitLong, "ping", "-n", "-c", "30", "-i", "0.1", "-W", "5", "-I", "10.1.0.1", "10.2.0.1")
			if gone := lab.Unanswered(out, 20); err != nil || len(gone) > 0 {
				t.Errorf("of 20 pings these had no answer: %v (%v)\n%s\n%s", gone, err, us.daemon.Ask("events"), swan.Log())
			}
			if bare, checked := wire.Count(x.bare), wire.Count(x.checked); bare < 20 || checked > 0 {
				t.Errorf("%d datagrams without a checksum, %d with one", bare, checked)
			}
		})
	}
}
