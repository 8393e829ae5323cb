//go:build guest

package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// sctpEcho answers one SCTP connection after another; sctpAsk sends and wants it back.
const (
	sctpEcho = `
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 132)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.bind(("::", 7011)); s.listen(5); print("listening", flush=True)
while True:
    c, _ = s.accept()
    while True:
        b = c.recv(65536)
        if not b: break
        c.sendall(b)
    c.close()
`
	sctpAsk = `
import os, socket, sys
to = sys.argv[1]
s = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_STREAM, 132)
s.settimeout(60)
s.connect((to, 7011))
for n in 10, 1000, 5000:
    sent, got = os.urandom(n), b""
    s.sendall(sent)
    while len(got) < n:
        b = s.recv(65536)
        assert b, "the far end has closed after %d bytes of %d" % (len(got), n)
        got += b
    assert got == sent
print("whole")
`
)

// Transport mode carries SCTP, and tunnels that the kernel makes: GRE and IP-in-IP.
// All that two hosts say to each other is protected.
func TestBesideCargo(t *testing.T) {
	t.Parallel()
	lab.Need(t, "tcpdump", "ping", python)
	for _, native := range []bool{true, false} {
		t.Run(fmt.Sprintf("native=%v", native), func(t *testing.T) {
			t.Parallel()
			tryCargo(t, native)
		})
	}
}

func tryCargo(t *testing.T, native bool) {
	l, client, server := lab.Pair(t)
	encapsulation := ""
	if !native {
		encapsulation = "  encapsulation = \"udp\""
	}
	policies := [2]string{"policy {\n  inbound  = \"bypass\"\n  outbound = \"bypass\"\n}\n", "policy {\n  inbound  = \"bypass\"\n  outbound = \"bypass\"\n}\n"}
	for i, m := range []lab.Manual{
		{Name: "v4", Local: "10.77.0.2", Remote: "10.77.0.1", SPI: 0x1001, Extra: encapsulation},
		{Name: "v6", Local: "fd77::2", Remote: "fd77::1", SPI: 0x2001, Extra: encapsulation},
	} {
		first, second := l.Blocks(m.Name, m)
		for side, block := range []string{first, second} {
			remote := []string{m.Remote, m.Local}[side]
			policies[side] += fmt.Sprintf("rule \"all-v%d\" {\n  action         = \"protect\"\n  with           = %q\n  direction      = \"both\"\n  remote_address = %q\n}\n%s", 4+2*i, m.Name, remote, block)
		}
	}
	a, b := client.IPFW(l.File("client.hcl", policies[0])), server.IPFW(l.File("server.hcl", policies[1]))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("client:\n%s\n%s\nserver:\n%s\n%s", lastLines(a.Output(), 20), a.Ask("status"), lastLines(b.Output(), 20), b.Ask("status"))
		}
	})
	wire := client.Capture("c0", "not ether multicast")

	tunnels := 0
	for i, tunnel := range []struct{ kind, local, remote, option string }{
		{"gre", "10.77.0.2", "10.77.0.1", "CONFIG_NET_IPGRE"},
		{"ipip", "10.77.0.2", "10.77.0.1", "CONFIG_NET_IPIP"},
		{"ip6gre", "fd77::2", "fd77::1", "CONFIG_IPV6_GRE"},
	} {
		there := true
		for side, h := range []*lab.Host{client, server} {
			ends := []string{tunnel.local, tunnel.remote}
			if out, err := h.Try(waitLong, "ip", "link", "add", "t"+fmt.Sprint(i), "mtu", "1300", "type", tunnel.kind, "local", ends[side], "remote", ends[1-side]); err != nil {
				t.Logf("this kernel has not %s (%s): %s", tunnel.kind, tunnel.option, strings.TrimSpace(out))
				there = false
				break
			}
			h.Run("ip", "addr", "add", fmt.Sprintf("10.9%d.0.%d/24", i, 2-side), "dev", "t"+fmt.Sprint(i))
			h.Run("ip", "link", "set", "t"+fmt.Sprint(i), "up")
		}
		if !there {
			continue
		}
		tunnels++
		to := fmt.Sprintf("10.9%d.0.1", i)
		l.Eventually(waitLong, tunnel.kind+" carries pings", func() bool { return pings(client, to) })
		if i == 0 {
			if err := server.Do(func() error { return lab.Serve(7) }); err != nil {
				t.Fatal(err)
			}
		}
		for network, size := range map[string]int{"tcp": 300_000, "udp": 4000} {
			x := lab.Transfer{Network: network, To: netip.AddrPortFrom(netip.MustParseAddr(to), 7), Size: size, Limit: waitLong}
			if err := client.Do(x.Do); err != nil {
				t.Errorf("%s, %v: %v", tunnel.kind, x, err)
			}
		}
	}
	if out, err := server.Try(waitLong, python, "-c", "import socket; socket.socket(socket.AF_INET6, socket.SOCK_STREAM, 132)"); err != nil {
		t.Logf("this kernel has not SCTP (CONFIG_IP_SCTP): %s", lastLines(out, 1))
		if tunnels == 0 {
			t.Skip("this kernel has not SCTP, GRE or IP-in-IP (CONFIG_IP_SCTP, CONFIG_NET_IPGRE, CONFIG_NET_IPIP)")
		}
	} else {
		p := server.Start(python, "-c", sctpEcho)
		l.Eventually(waitLong, "the SCTP server listens", func() bool { return strings.Contains(p.Output(), "listening") })
		for _, to := range []string{"10.77.0.1", "fd77::1"} {
			if out, err := client.Try(waitLong, python, "-c", sctpAsk, to); err != nil || !strings.Contains(out, "whole") {
				t.Errorf("SCTP to %s: %v\n%s", to, err, out)
			}
		}
	}
	sealedOnly(t, wire, 50)
}
