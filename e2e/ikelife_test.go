package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// notSealed is a filter for what may not cross the wire between two hosts that
// agree on keys.
const notSealed = clearText + " and not udp port 500"

// ikeHost is one side of a pair that agrees on keys.
type ikeHost struct {
	*lab.Host
	name, addr string
	policy     string // its file
	daemon     *lab.Daemon
}

// run starts the daemon.
func (h *ikeHost) run(t *testing.T) {
	d := h.IPFW(h.policy)
	h.daemon = d
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s:\n%s", h.name, lastLines(d.Output(), 40))
		}
	})
}

// ikePair makes two hosts with raw keys and their policies, without daemons yet.
func ikePair(t *testing.T, mode string, v6 bool, more string) (l *lab.Lab, a, b *ikeHost) {
	l, client, server := lab.Pair(t)
	l.RawKeys(false, "client", "server")
	a, b = &ikeHost{Host: client, name: "client", addr: "10.77.0.2"}, &ikeHost{Host: server, name: "server", addr: "10.77.0.1"}
	if v6 {
		a.addr, b.addr = "fd77::2", "fd77::1"
	}
	a.policy = l.File("client/policy.hcl", ikePolicy(mode, "esp", "client", a.addr, "server", b.addr, rawKeys+more))
	b.policy = l.File("server/policy.hcl", ikePolicy(mode, "esp", "server", b.addr, "client", a.addr, rawKeys+more))
	return l, a, b
}

// sealed fails if anything crossed the wire in the clear.
func sealed(t *testing.T, wire *lab.Capture) {
	t.Helper()
	if n := wire.Count(notSealed); n > 0 {
		t.Errorf("%d packets crossed the wire in the clear:\n%s", n, wire.Text(notSealed))
	}
}

// Keys change again and again, by either side and of either kind, while packets
// flow both ways: none is lost, and none is in the clear.
func TestIKERekeyUnderLoad(t *testing.T) {
	for _, row := range []struct {
		mode string
		v6   bool
	}{{"transport", false}, {"tunnel", true}} {
		t.Run(row.mode, func(t *testing.T) {
			l, a, b := ikePair(t, row.mode, row.v6, "")
			lab.Need(t, "ping")
			wire := b.Capture("s0", "host "+a.addr)
			a.run(t)
			b.run(t)
			a.Run("ping", "-c", "1", "-W", "5", b.addr)
			// By count: what is under way when ping is stopped would seem lost.
			load := a.Start("ping", "-q", "-c", "1500", "-i", "0.003", "-W", "5", b.addr)
			for range 3 {
				for _, h := range []*ikeHost{a, b} {
					other := map[*ikeHost]string{a: "server", b: "client"}[h]
					h.daemon.Ask("ike", "rekey", "peer")
					h.daemon.Ask("ike", "rekey", other)
				}
			}
			// Both at once.
			both := []*lab.Process{a.Start(lab.Binary(t), "ike", "rekey", "peer", "--socket", a.daemon.Socket),
				b.Start(lab.Binary(t), "ike", "rekey", "peer", "--socket", b.daemon.Socket)}
			for _, p := range both {
				if err := p.Wait(waitLong); err != nil {
					t.Errorf("rekey from both sides at once: %v\n%s", err, p.Output())
				}
			}
			if err := load.Wait(3 * waitLong); err != nil {
				t.Error(err)
			}
			out := load.Output()
			t.Log(lastLines(out, 3))
			if !strings.Contains(out, " 0% packet loss") {
				t.Error("packets were lost while keys changed")
			}
			sealed(t, wire)
			// Nothing is left over: one pair of SAs, once the old ones have gone.
			l.Eventually(2*waitLong, "one pair of SAs on each side", func() bool {
				return strings.Count(a.daemon.Ask("sas", "--json"), "\n") == 2 && strings.Count(b.daemon.Ask("sas", "--json"), "\n") == 2
			})
		})
	}
}

// natLab is a client behind a NAT that hides it.
//
//	client 10.77.1.2 --- 10.77.1.254 nat 10.77.2.254 --- 10.77.2.1 server
func natLab(t *testing.T) (l *lab.Lab, client, nat, server *lab.Host) {
	l = lab.New(t)
	lab.Need(t, "nft", "ping", "tcpdump", "iperf3")
	client, nat, server = l.Host("client"), l.Host("nat"), l.Host("server")
	l.Join(client, "c0", []string{"10.77.1.2/24"}, nat, "n0", []string{"10.77.1.254/24"})
	l.Join(nat, "n1", []string{"10.77.2.254/24"}, server, "s0", []string{"10.77.2.1/24"})
	client.Run("ip", "route", "add", "default", "via", "10.77.1.254")
	nat.Sysctl("net.ipv4.ip_forward", "1")
	nat.Run("nft", "add table ip n; add chain ip n post { type nat hook postrouting priority 100; }; add rule ip n post oifname n1 masquerade")
	l.RawKeys(false, "client", "server")
	return l, client, nat, server
}

// A host behind a NAT reaches its peer, in both modes; ESP travels in UDP.
func TestIKEThroughNAT(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"tunnel", "transport"} {
		t.Run(mode, func(t *testing.T) {
			l, client, nat, server := natLab(t)
			seen := "10.77.2.254" // what the server calls the client
			if mode == "tunnel" {
				seen = "10.77.1.2"
				server.Run("ip", "route", "add", "10.77.1.0/24", "via", "10.77.2.254")
			}
			wire := server.Capture("s0", "host 10.77.2.254 or host 10.77.1.2")
			a := &ikeHost{Host: client, name: "client", policy: l.File("client/policy.hcl", ikePolicy(mode, "esp", "client", "10.77.1.2", "server", "10.77.2.1", rawKeys))}
			text := strings.Replace(ikePolicy(mode, "esp", "server", "10.77.2.1", "client", seen, rawKeys), fmt.Sprintf("  remote_endpoint = %q\n", seen), "", 1)
			b := &ikeHost{Host: server, name: "server", policy: l.File("server/policy.hcl", text)}
			a.run(t)
			b.run(t)
			client.Run("ping", "-c", "3", "-i", "0.2", "-W", "5", "10.77.2.1")
			server.Start("iperf3", "-s", "-1")
			l.Eventually(waitLong, "iperf3 listens", func() bool {
				out, _ := server.Try(waitLong, "ss", "-ltn")
				return strings.Contains(out, ":5201")
			})
			client.Run("iperf3", "-c", "10.77.2.1", "-n", "2M")
			if out := b.daemon.Ask("ike", "list", "--json"); !strings.Contains(out, `"nat":true`) {
				t.Errorf("the NAT is not seen: %s", out)
			}
			// The NAT forgets, and maps to another port.
			nat.Run("nft", "flush chain ip n post; add rule ip n post oifname n1 ip protocol udp masquerade to :20000-20100; add rule ip n post oifname n1 masquerade")
			forget(nat)
			client.Run("ping", "-c", "3", "-i", "0.2", "-W", "5", "10.77.2.1")
			server.Run("ping", "-c", "3", "-i", "0.2", "-W", "5", seen)
			if out := b.daemon.Ask("ike", "list", "--json"); !strings.Contains(out, `"remote":"10.77.2.254:200`) {
				t.Errorf("the new mapping is not seen: %s", out)
			}
			if n := wire.Count("udp port 4500"); n < 20 {
				t.Errorf("only %d packets in UDP", n)
			}
			// What the server sends to the old mapping before it has heard of
			// the new one, the NAT itself says that it cannot place.
			const clear = notSealed + " and not (src host 10.77.2.254 and icmp[icmptype] = 3 and icmp[icmpcode] = 3)"
			if n := wire.Count(clear); n > 0 {
				t.Errorf("%d packets crossed the wire in the clear:\n%s", n, wire.Text(clear))
			}
		})
	}
}

// forget has a NAT lose what it knows: its interface loses its address, with
// which masquerading ends.
func forget(nat *lab.Host) {
	nat.Run("ip", "addr", "del", "10.77.2.254/24", "dev", "n1")
	nat.Run("ip", "addr", "add", "10.77.2.254/24", "dev", "n1")
}

// A peer that dies and comes back is known again at once, by whoever speaks
// first, and nothing crosses in the clear meanwhile.
func TestIKEPeerKilled(t *testing.T) {
	t.Parallel()
	_, a, b := ikePair(t, "transport", false, "  dead_peer_detection = \"1s\"\n")
	lab.Need(t, "ping")
	wire := b.Capture("s0", "host "+a.addr)
	a.run(t)
	b.run(t)
	a.Run("ping", "-c", "1", "-W", "5", b.addr)
	b.daemon.Kill()
	if out, err := a.Try(waitLong, "ping", "-c", "1", "-W", "1", b.addr); err == nil {
		t.Errorf("answered by a dead host: %s", out)
	}
	b.run(t)
	b.Run("ping", "-c", "3", "-i", "0.2", "-W", "5", a.addr)
	a.Run("ping", "-c", "3", "-i", "0.2", "-W", "5", b.addr)
	sealed(t, wire)
}

// A side that stops in good order says so: the other forgets its SAs.
func TestIKEFarewell(t *testing.T) {
	t.Parallel()
	l, a, b := ikePair(t, "tunnel", false, "")
	lab.Need(t, "ping")
	a.run(t)
	b.run(t)
	a.Run("ping", "-c", "1", "-W", "5", b.addr)
	b.daemon.Signal(syscall.SIGTERM)
	if err := b.daemon.Wait(waitLong); err != nil {
		t.Fatal(err)
	}
	l.Eventually(waitLong, "the other side forgets", func() bool { return a.daemon.Ask("sas", "--json") == "" })
}

// A host whose address changes takes its tunnel with it (RFC 4555).
func TestIKEAddressChange(t *testing.T) {
	t.Parallel()
	l, client, server := lab.Pair(t)
	lab.Need(t, "ping")
	l.RawKeys(false, "client", "server")
	// The inner addresses are others than those of the link.
	client.Run("ip", "addr", "add", "10.88.0.2/32", "dev", "lo")
	server.Run("ip", "addr", "add", "10.88.0.1/32", "dev", "lo")
	client.Run("ip", "route", "add", "10.88.0.1", "dev", "c0", "via", "10.77.0.1", "src", "10.88.0.2")
	server.Run("ip", "route", "add", "10.88.0.2", "dev", "s0", "via", "10.77.0.2", "src", "10.88.0.1")
	inner := func(self, selfInner, peer, peerInner, endpoint string) string {
		s := ikePolicy("tunnel", "esp", self, selfInner, peer, peerInner, rawKeys)
		return strings.Replace(s, fmt.Sprintf("  remote_endpoint = %q\n", peerInner), endpoint, 1)
	}
	wire := server.Capture("s0", "net 10.77.0.0/24 or net 10.88.0.0/24")
	a := &ikeHost{Host: client, name: "client", policy: l.File("client/policy.hcl", inner("client", "10.88.0.2", "server", "10.88.0.1", "  remote_endpoint = \"10.77.0.1\"\n"))}
	b := &ikeHost{Host: server, name: "server", policy: l.File("server/policy.hcl", inner("server", "10.88.0.1", "client", "10.88.0.2", ""))}
	a.run(t)
	b.run(t)
	client.Run("ping", "-c", "2", "-i", "0.2", "-W", "5", "10.88.0.1")
	before := a.daemon.Ask("ike", "list", "--json")
	client.Run("ip", "addr", "del", "10.77.0.2/24", "dev", "c0")
	client.Run("ip", "addr", "add", "10.77.0.9/24", "dev", "c0")
	client.Run("ip", "route", "replace", "10.88.0.1", "dev", "c0", "via", "10.77.0.1", "src", "10.88.0.2")
	server.Run("ip", "route", "replace", "10.88.0.2", "dev", "s0", "via", "10.77.0.9", "src", "10.88.0.1")
	l.Eventually(2*waitLong, "the tunnel has moved", func() bool {
		return strings.Contains(b.daemon.Ask("ike", "list", "--json"), `"remote":"10.77.0.9:`)
	})
	client.Run("ping", "-c", "3", "-i", "0.2", "-W", "5", "10.88.0.1")
	server.Run("ping", "-c", "3", "-i", "0.2", "-W", "5", "10.88.0.2")
	if after := a.daemon.Ask("ike", "list", "--json"); spiOf(before) != spiOf(after) {
		t.Errorf("it is another IKE SA:\n%s%s", before, after)
	}
	sealed(t, wire)
}

func spiOf(list string) string {
	_, rest, _ := strings.Cut(list, `"spi_i":"`)
	return rest[:min(16, len(rest))]
}

// A reload keeps the SAs of blocks that are the same, and ends those of others,
// on both sides.
func TestIKEReload(t *testing.T) {
	t.Parallel()
	l, a, b := ikePair(t, "transport", false, "")
	lab.Need(t, "ping")
	a.run(t)
	b.run(t)
	a.Run("ping", "-c", "1", "-W", "5", b.addr)
	spi := spiOf(a.daemon.Ask("ike", "list", "--json"))
	sas := func(h *ikeHost) int { return strings.Count(h.daemon.Ask("sas", "--json"), "\n") }
	text := ikePolicy("transport", "esp", "client", a.addr, "server", b.addr, rawKeys)
	change := func(policy string) {
		l.File("client/policy.hcl", policy)
		a.daemon.Ask("reload")
	}
	change(text + "rule \"more\" {\n  action = \"bypass\"\n  direction = \"in\"\n  protocol = \"tcp\"\n  local_port = 22\n}\n")
	if got := spiOf(a.daemon.Ask("ike", "list", "--json")); got != spi || sas(a) != 2 {
		t.Errorf("another rule has changed the IKE SA: %s, before %s, %d SAs", got, spi, sas(a))
	}
	a.Run("ping", "-c", "1", "-W", "5", b.addr)

	change(strings.Replace(text, "  ike      =", "  encryption = \"chacha20-poly1305\"\n  ike      =", 1))
	l.Eventually(waitLong, "the child that has changed is gone on both sides", func() bool { return sas(a) == 0 && sas(b) == 0 })
	a.Run("ping", "-c", "1", "-W", "5", b.addr)
	if out := a.daemon.Ask("sas", "--json"); !strings.Contains(out, "chacha20-poly1305") || spiOf(a.daemon.Ask("ike", "list", "--json")) != spi {
		t.Errorf("not made anew by the same IKE SA: %s", out)
	}

	change("policy {\n  inbound  = \"discard\"\n  outbound = \"discard\"\n}\n")
	l.Eventually(waitLong, "all is gone on both sides", func() bool {
		return sas(a) == 0 && sas(b) == 0 && b.daemon.Ask("ike", "list", "--json") == ""
	})
}
