package e2e

import (
	"strings"
	"testing"
)

// The answer that brings the keys is lost on its way, and the responder sends by
// the new SA meanwhile: what comes waits for the answer, and is not lost.
func TestIKEEarlyPackets(t *testing.T) {
	t.Parallel()
	for _, proto := range []string{"esp", "esp native", "ah"} {
		t.Run(proto, func(t *testing.T) {
			l, client, way, server := natLab(t)
			way.Run("nft", "delete table ip n") // no NAT here
			server.Run("ip", "route", "add", "10.77.1.0/24", "via", "10.77.2.254")
			wire := server.Capture("s0", "host 10.77.1.2")
			a := &ikeHost{Host: client, name: "client", policy: l.File("client/policy.hcl", ikePolicy("transport", proto, "client", "10.77.1.2", "server", "10.77.2.1", rawKeys))}
			b := &ikeHost{Host: server, name: "server", policy: l.File("server/policy.hcl", ikePolicy("transport", proto, "server", "10.77.2.1", "client", "10.77.1.2", rawKeys+"  initiate = \"never\"\n"))}
			a.run(t)
			b.run(t)
			// Behind the marker on port 4500, what says IKE_AUTH does not pass.
			way.Run("nft", "add table ip w; add chain ip w f { type filter hook forward priority 0; }; add rule ip w f iifname n1 udp sport 4500 @th,64,32 0 @th,240,8 35 drop")
			call := client.Start("ping", "-c", "1", "-W", "30", "10.77.2.1")
			l.Eventually(waitLong, "the responder has the SAs", func() bool { return strings.Contains(b.daemon.Ask("sas", "--json"), `"out"`) })
			load := server.Start("ping", "-q", "-i", "0.05", "-w", "60", "10.77.1.2")
			l.Eventually(waitLong, "a sealed packet waits", func() bool {
				return status(t, a.daemon).Reasons["held"] > 1 // one is the ping that asks for the SA
			})
			if out := a.daemon.Ask("sas", "--json"); out != "" {
				t.Fatalf("the answer has arrived: %s", out)
			}
			way.Run("nft", "delete table ip w")
			l.Eventually(waitLong, "what came early is opened", func() bool {
				return status(t, a.daemon).IKE.EarlyOpened > 0
			})
			if err := call.Wait(waitLong); err != nil {
				t.Error(err)
			}
			load.Kill()
			sealed(t, wire)
		})
	}
}
