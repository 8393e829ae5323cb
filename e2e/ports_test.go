package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// listener binds UDP ports and prints what it gets.
const listener = `
import select, socket, sys
socks = []
for address in sys.argv[1:]:
    host, port = address.rsplit("/", 1)
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((host, int(port)))
    socks.append(s)
print("bound", flush=True)
while True:
    for s in select.select(socks, [], [])[0]:
        print("got", s.recv(100), flush=True)
`

func listen(l *lab.Lab, h *lab.Host, starter []string, addresses ...string) *lab.Process {
	l.Helper()
	p := h.Start(append(append(append([]string{}, starter...), python, "-u", "-c", listener), addresses...)...)
	l.Eventually(waitLong, "the listener has bound its ports", func() bool { return strings.Contains(p.Output(), "bound") })
	return p
}

// say sends a word to UDP ports from another host and waits until it was sent.
func say(h *lab.Host, word string, addresses ...string) {
	h.Run(append([]string{python, "-c", `
import socket, sys
for address in sys.argv[2:]:
    host, port = address.rsplit("/", 1)
    socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM).sendto(sys.argv[1].encode(), (host, int(port)))
`, word}, addresses...)...)
}

// While no daemon judges, what comes to UDP port 4500 gets to nobody: the daemon
// was killed, has stopped with --stay-shut, or the host was shut without one.
func TestPortsWhileShut(t *testing.T) {
	l, client, server := lab.Pair(t)
	block, _ := l.Blocks("pair", lab.Manual{Local: "10.77.0.1", Remote: "10.77.0.9", SPI: 0x1001, Extra: "  encapsulation = \"udp\""})
	policy := l.File("policy.hcl", fmt.Sprintf(protectAll, "10.77.0.9")+block)
	ports := []string{"10.77.0.1/4500", "fd77::1/4500", "10.77.0.1/4501"}
	check := func(when string) {
		t.Helper()
		p := listen(l, server, unprivileged, ports...)
		say(client, "from anybody", ports...)
		say(server, "from here", ports[:2]...)
		l.Eventually(waitLong, "loopback passes", func() bool { return strings.Count(p.Output(), "from here") == 2 })
		if strings.Contains(p.Output(), "from anybody") {
			t.Errorf("%s: %s", when, p.Output())
		}
		p.Kill()
	}
	d := server.IPFW(policy)
	d.Kill()
	check("killed")
	d = server.IPFW(policy, "--stay-shut")
	d.Signal(syscall.SIGTERM)
	if err := d.Wait(waitLong); err != nil {
		t.Fatal(err)
	}
	check("left shut")
	server.Run(lab.Binary(t), "open", "--socket", d.Socket)
	server.Run(lab.Binary(t), "shut", "--force", "-c", policy, "--socket", d.Socket)
	check("shut")
}

// Nobody without privileges keeps the daemon from starting, and what he has the
// port of goes past him.
func TestPortOfUnprivileged(t *testing.T) {
	l, client, server := lab.Pair(t)
	p := listen(l, server, unprivileged, "0.0.0.0/4500")
	first, second := l.Blocks("pair", lab.Manual{Local: "10.77.0.2", Remote: "10.77.0.1", SPI: 0x1001, Extra: "  encapsulation = \"udp\""})
	client.IPFW(l.File("client.hcl", fmt.Sprintf(protectAll, "10.77.0.1")+first))
	d := server.IPFW(l.File("server.hcl", fmt.Sprintf(protectAll, "10.77.0.2")+second))
	wire := client.Capture("c0", "ip")
	client.Run("ping", "-c", "3", "-i", "0.2", "-W", "2", "10.77.0.1")
	server.Run("ping", "-c", "3", "-i", "0.2", "-W", "2", "10.77.0.2")
	if n := wire.Count("udp port 4500"); n < 12 || wire.Count("icmp") > 0 {
		t.Errorf("%d datagrams of ESP in UDP:\n%s", n, wire.Text("ip"))
	}
	if out := d.Ask("status"); !strings.Contains(out, "of user 65534") {
		t.Errorf("who has the port is not told:\n%s", out)
	}
	if strings.Contains(p.Output(), "got") {
		t.Errorf("who has the port got something: %.300s", p.Output())
	}
}

// A start that fails leaves a host without a table shut, and says how it is
// opened; but not one whose policy is not good, and not one that asked to be
// confirmed.
func TestStartThatFails(t *testing.T) {
	l, client, server := lab.Pair(t)
	block, _ := l.Blocks("pair", lab.Manual{Local: "10.77.0.1", Remote: "10.77.0.9", SPI: 0x1001, Extra: "  encapsulation = \"udp\""})
	good := l.File("policy.hcl", fmt.Sprintf(protectAll, "10.77.0.9")+block)
	listen(l, server, nil, "127.0.0.1/4500") // of root
	p := listen(l, server, nil, "10.77.0.1/7777", "fd77::1/7777")
	for i, tc := range []struct {
		name, policy string
		args         []string
		shut         bool
	}{
		{"bad policy", l.File("bad.hcl", "policy {\n"), nil, false},
		{"to be confirmed", good, []string{"--confirm", "60s"}, false},
		{"port taken", good, nil, true},
	} {
		d := server.StartIPFW(tc.policy, tc.args...)
		if err := d.Wait(waitLong); err == nil || strings.Contains(err.Error(), "still running") {
			t.Fatalf("%s: %v\n%s", tc.name, err, d.Output())
		}
		word := fmt.Sprintf("word %d ", i)
		say(client, word+"outside", "10.77.0.1/7777", "fd77::1/7777")
		say(server, word+"here", "10.77.0.1/7777", "fd77::1/7777")
		l.Eventually(waitLong, "loopback passes", func() bool { return strings.Count(p.Output(), word+"here") == 2 })
		if got := strings.Count(p.Output(), word+"outside"); (got == 0) != tc.shut {
			t.Errorf("%s: %d datagrams from outside, shut %v\n%s", tc.name, got, tc.shut, d.Output())
		}
		if strings.Contains(d.Output(), "`ipfw open`") != tc.shut {
			t.Errorf("%s: %s", tc.name, d.Output())
		}
		if !tc.shut {
			continue
		}
		if !strings.Contains(d.Output(), "UDP port 4500") || !strings.Contains(d.Output(), "is taken by process ") {
			t.Errorf("%s: %s", tc.name, d.Output())
		}
		server.Run(lab.Binary(t), "open", "--socket", d.Socket)
		say(client, "open again", "10.77.0.1/7777")
		l.Eventually(10*time.Second, "datagrams get in after ipfw open", func() bool { return strings.Contains(p.Output(), "open again") })
	}
}
