package e2e

import (
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// ownWays is a server on which the test sits by a session, as in
// TestOwnSessionIsNotCut.
type ownWays struct {
	*lab.Lab
	client, server *lab.Host
	policy         string
}

// reload puts another policy in force, or is refused.
func (w *ownWays) reload(t *testing.T, d *lab.Daemon, policy string) (out string, err error) {
	t.Helper()
	if err := os.WriteFile(w.policy, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	return w.server.Try(waitLong, lab.Binary(t), "reload", "--socket", d.Socket)
}

func (w *ownWays) refused(t *testing.T, d *lab.Daemon, policy string, ends ...string) {
	t.Helper()
	out, err := w.reload(t, d, policy)
	for _, end := range append(ends, "your own session") {
		if err == nil || !strings.Contains(out, end) {
			t.Fatalf("the reload is not refused because of %s: %v\n%s", end, err, out)
		}
	}
}

// An address is not always on the interface by which its packets come: not a router's
// own on its loopback interface, nor where packets for one interface's address come
// by another. The session is found all the same, by the interface that it came by.
func TestOwnSessionToAnotherInterfacesAddress(t *testing.T) {
	l, client, server := lab.Pair(t)
	w := &ownWays{l, client, server, l.Dir + "/policy.hcl"}
	echoServer(t, server, 7001)
	echoServer(t, server, 7002)
	server.Run("ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
	server.Run("ip", "addr", "add", "2001:db8::1/128", "dev", "lo", "nodad")
	server.Run("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
	server.Run("ip", "link", "set", "v0", "up")
	server.Run("ip", "addr", "add", "198.51.100.1/24", "dev", "v0")
	client.Run("ip", "route", "add", "192.0.2.1", "via", "10.77.0.1")
	client.Run("ip", "route", "add", "198.51.100.1", "via", "10.77.0.1")
	client.Run("ip", "route", "add", "2001:db8::1", "via", "fd77::1")
	lo := []string{"192.0.2.1:7002", "[2001:db8::1]:7002"}
	sessions := []*session{mustOpen(t, client, lo[0]), mustOpen(t, client, lo[1])}

	if out, err := server.Try(waitLong, lab.Binary(t), "run", "-c", l.File("first.hcl", twoPorts(false, "")), "--socket", l.Dir+"/other.sock", "--state", ""); err == nil ||
		!strings.Contains(out, lo[0]) || !strings.Contains(out, lo[1]) {
		t.Fatalf("run is not refused: %v\n%s", err, out)
	}
	by := func(device string) string {
		return strings.Replace(twoPorts(true, ""), "  local_port", "  interface = \""+device+"\"\n  local_port", 1)
	}
	// No flow says by which interface they have come. The routes do.
	socket := l.Dir + "/first.sock"
	first := server.Start(lab.Binary(t), "run", "-c", l.File("s0.hcl", by("s0")), "--socket", socket, "--state", "")
	l.Eventually(waitLong, "a policy that names the interface by which they come is taken", func() bool {
		_, err := server.Try(waitLong, lab.Binary(t), "status", "--socket", socket)
		return err == nil
	})
	first.Signal(syscall.SIGTERM)
	if err := first.Wait(waitLong); err != nil {
		t.Fatalf("%v\n%s", err, first.Output())
	}
	d := server.IPFW(l.File("policy.hcl", twoPorts(true, "")))
	w.refused(t, d, twoPorts(false, ""), lo...)
	for i, s := range sessions {
		if !s.moves(waitLong) {
			t.Errorf("session %d to an address on lo does not go on", i)
		}
		s.conn.Close()
	}

	s := mustOpen(t, client, "198.51.100.1:7002")
	w.refused(t, d, by("v0"), "198.51.100.1:7002")
	if out, err := w.reload(t, d, by("s0")); err != nil || !s.moves(waitLong) {
		t.Errorf("the interface by which the session comes: %v\n%s", err, out)
	}
}

// Who sits at this host by a program on it, such as the far end of a reverse tunnel
// or a web console's proxy, comes by loopback. The program's connection is the session.
func TestOwnSessionBehindARelay(t *testing.T) {
	l, client, server := lab.Pair(t)
	lab.Need(t, "python3")
	w := &ownWays{l, client, server, l.Dir + "/policy.hcl"}
	echoServer(t, server, 7002)
	echoServer(t, server, 7001)
	var far net.Listener
	if err := within(t, client, func() (err error) { far, err = net.Listen("tcp", "10.77.0.2:9000"); return err }); err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	server.Start("python3", "-c", `
import socket, threading
out = socket.create_connection(("10.77.0.2", 9000))
inner = socket.create_connection(("127.0.0.1", 7002))
def pump(a, b):
    while True:
        data = a.recv(65536)
        if not data:
            return
        b.sendall(data)
threading.Thread(target=pump, args=(inner, out), daemon=True).start()
pump(out, inner)
`)
	c, err := far.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	echo := func(when string) {
		t.Helper()
		b := make([]byte, 4)
		if _, err := c.Write([]byte("ping")); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		if _, err := c.Read(b); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
	}
	echo("before")
	d := server.IPFW(l.File("policy.hcl", twoPorts(true, "")))
	echo("policy in force")
	w.refused(t, d, strings.Replace(twoPorts(true, ""), `outbound = "bypass"`, `outbound = "discard"`, 1), "10.77.0.2:9000")
	echo("refused")
}
