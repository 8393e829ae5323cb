package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/host"
)

// TestCountersAddUp: each packet has one reason, and whoever asks for the counters
// while packets come and go, keys are agreed on and flows are handed to the kernel,
// finds that they add up.
func TestCountersAddUp(t *testing.T) {
	t.Parallel()
	lab.Need(t, "ping", "iperf3", "ss")
	for _, row := range []struct{ name, mode, proto, self, peer, offload string }{
		{"udp-v4", "transport", "esp", "10.77.0.2", "10.77.0.1", "flow"},
		{"udp-v6-tunnel", "tunnel", "esp", "fd77::2", "fd77::1", "none"},
		{"native-v4-tunnel", "tunnel", "esp native", "10.77.0.2", "10.77.0.1", "none"},
		{"ah-v4", "transport", "ah", "10.77.0.2", "10.77.0.1", "flow"},
		{"clear-v4", "", "", "10.77.0.2", "10.77.0.1", "flow"},
		{"clear-v6", "", "", "fd77::2", "fd77::1", "none"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			l, client, server := lab.Pair(t)
			l.RawKeys(false, "client", "server")
			policy := func(self, selfAddr, peer, peerAddr string) string {
				text := "policy {\n  inbound = \"bypass\"\n  outbound = \"bypass\"\n}\n"
				if row.mode != "" {
					text = ikePolicy(row.mode, row.proto, self, selfAddr, peer, peerAddr, rawKeys)
				}
				return strings.Replace(text, "policy {", fmt.Sprintf("policy {\n  offload = %q", row.offload), 1)
			}
			var daemons []*host.Client
			for _, d := range []*lab.Daemon{
				client.IPFW(l.File("client/policy.hcl", policy("client", row.self, "server", row.peer))),
				server.IPFW(l.File("server/policy.hcl", policy("server", row.peer, "client", row.self))),
			} {
				c := host.NewClient(d.Socket)
				defer c.Close()
				daemons = append(daemons, c)
			}
			server.Start("iperf3", "-s")
			l.Eventually(waitLong, "iperf3 listens", func() bool {
				out, _ := server.Try(waitLong, "ss", "-ltn")
				return strings.Contains(out, ":5201")
			})
			var add addedUp
			for range 2 {
				for _, traffic := range [][]string{
					{"iperf3", "-c", row.peer, "-n", "8M"},
					{"iperf3", "-c", row.peer, "-n", "8M", "-R"},
					{"ping", "-c", "20", "-i", "0.01", "-s", "4000", "-W", "5", row.peer},
				} {
					done := make(chan struct{})
					go func() {
						defer close(done)
						client.Try(waitLong, traffic...)
					}()
					for over := false; !over; {
						select {
						case <-done:
							over = true
						default:
						}
						for _, d := range daemons {
							add.look(t, d)
						}
					}
				}
			}
			t.Logf("asked %d times, %d packets at the end, %d carried by the kernel, %d judged again", add.asked, add.packets, add.carried, add.again)
			// Four times 8 MiB, in super packets of at most 64 KiB.
			if add.packets+add.carried < 4*8<<20/(64<<10) || (row.mode != "") != (add.again > 0) || (row.mode == "" && row.offload == "flow") != (add.carried > 0) {
				t.Error("not all kinds of packets were there")
			}
		})
	}
}

// addedUp holds what the last look at the counters saw.
type addedUp struct {
	asked                   int
	packets, carried, again uint64
}

func (a *addedUp) look(t *testing.T, d *host.Client) {
	t.Helper()
	s, err := d.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sum := uint64(0)
	for _, n := range s.Reasons {
		sum += n
	}
	a.asked++
	a.packets, a.carried, a.again = s.Queue.Packets, s.Carried, s.JudgedAgain
	if q := s.Queue; sum != q.Packets+s.Carried+s.JudgedAgain || q.Accepted+q.Dropped != q.Packets {
		t.Errorf("%d packets came up, the kernel carried %d, %d were judged again, %d have a reason, %d were accepted, %d dropped: %v",
			q.Packets, s.Carried, s.JudgedAgain, sum, q.Accepted, q.Dropped, s.Reasons)
	}
}
