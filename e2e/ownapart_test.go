package e2e

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// A session may be one of UDP, as mosh's: the process above the shell has a socket
// that is bound to a port alone. Connection tracking tells with whom it speaks; who
// has sent something and was not answered does not count. Where nothing is tracked
// yet, the ssh session that it began with tells who it is.
func TestOwnSessionOverUDP(t *testing.T) {
	l, client, server := lab.Pair(t)
	w := &ownWays{l, client, server, l.Dir + "/policy.hcl"}
	var mosh *net.UDPConn
	if err := within(t, server, func() (err error) { mosh, err = net.ListenUDP("udp", &net.UDPAddr{Port: 7002}); return err }); err != nil {
		t.Fatal(err)
	}
	defer mosh.Close()
	policy := func(in string) string {
		return fmt.Sprintf("policy {\n  inbound  = \"discard\"\n  outbound = \"bypass\"\n}\nrule \"mosh\" {\n  action     = \"bypass\"\n  direction  = \"in\"\n  protocol   = \"udp\"\n  local_port = %s\n}\n", in)
	}
	first := l.File("first.hcl", policy("7001"))
	run := []string{lab.Binary(t), "run", "-c", first, "--socket", l.Dir + "/other.sock", "--state", ""}
	out, err := server.Try(waitLong, append([]string{"env", "SSH_CONNECTION=10.77.0.2 4000 10.77.0.1 22"}, run...)...)
	if err == nil || !strings.Contains(out, "your own session") || !strings.Contains(out, "in udp 10.77.0.2:50000 -> 10.77.0.1:7002") {
		t.Fatalf("run: %v\n%s", err, out)
	}

	d := server.IPFW(l.File("policy.hcl", policy("7002")))
	var ends []string
	for _, to := range addresses(7002) {
		var c, stranger net.Conn
		if err := within(t, client, func() (err error) {
			if c, err = net.Dial("udp", to); err == nil {
				stranger, err = net.Dial("udp", to)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		defer stranger.Close()
		for range 2 {
			if _, err := stranger.Write([]byte("spam")); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write([]byte("ping")); err != nil {
				t.Fatal(err)
			}
		}
		b := make([]byte, 4)
		for answered := 0; answered < 2; {
			_, from, err := mosh.ReadFromUDPAddrPort(b)
			if err != nil {
				t.Fatal(err)
			}
			if string(b) != "ping" {
				continue
			}
			if _, err := mosh.WriteToUDPAddrPort(b, from); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Read(b); err != nil {
				t.Fatal(err)
			}
			answered++
		}
		ends = append(ends, fmt.Sprintf("in udp %s -> %s", c.LocalAddr(), to))
	}
	w.refused(t, d, policy("7001"), ends...)
	if out, err := w.reload(t, d, policy("[7001, 7002]")); err != nil {
		t.Errorf("a policy that lets it in: %v\n%s", err, out)
	}
	out, err = w.reload(t, d, policy("7001"))
	if n := strings.Count(out, "in udp"); err == nil || n != len(ends) {
		t.Errorf("%d sessions are named, want %d: %v\n%s", n, len(ends), err, out)
	}
}

// What leaves its parents and its session, with an empty environment, is still part
// of the login that it was started from.
func TestOwnSessionOfWhatWasStartedApart(t *testing.T) {
	l, client, server := lab.Pair(t)
	lab.Need(t, "python3")
	policy := l.File("policy.hcl", twoPorts(true, ""))
	d := server.IPFW(policy)
	sshd := server.Start("python3", "-c", `
import os, socket, sys
ipfw, control, folder = sys.argv[1:]
listener = socket.create_server(("10.77.0.1", 7002))
print("ready", flush=True)
session, _ = listener.accept()
listener.close()
with open("/proc/self/loginuid", "w") as f:
    f.write("0")
how = session.recv(1)
session.sendall(how)
while True:
    how = session.recv(1)
    if not how:
        break
    if os.fork() == 0:
        session.close()
        if how == b"s":
            os.setsid()
        if os.fork():
            os._exit(0)
        os.dup2(os.open(folder + "/out", os.O_WRONLY | os.O_CREAT, 0o600), 2)
        while os.getppid() != 1:
            pass
        rc = os.spawnve(os.P_WAIT, ipfw, [ipfw, "reload", "--socket", control], {})
        with open(folder + "/rc.new", "w") as f:
            f.write(str(rc))
        os.rename(folder + "/rc.new", folder + "/rc")
        os._exit(0)
    os.wait()
`, lab.Binary(t), d.Socket, l.Dir)
	l.Eventually(waitLong, "it listens", func() bool { return strings.Contains(sshd.Output(), "ready") })
	var c net.Conn
	if err := within(t, client, func() (err error) { c, err = net.Dial("tcp", "10.77.0.1:7002"); return err }); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatalf("the session: %v\n%s", err, sshd.Output())
	}
	if err := os.WriteFile(policy, []byte(twoPorts(false, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("s")); err != nil {
		t.Fatal(err)
	}
	l.Eventually(waitLong, "the reload ends", func() bool { _, err := os.Stat(l.Dir + "/rc"); return err == nil })
	rc, _ := os.ReadFile(l.Dir + "/rc")
	out, _ := os.ReadFile(l.Dir + "/out")
	if want := fmt.Sprintf("in tcp %s -> 10.77.0.1:7002", c.LocalAddr()); string(rc) != "1" || !strings.Contains(string(out), "your own session") || !strings.Contains(string(out), want) {
		t.Errorf("the reload is not refused because of %s: exit %s\n%s\n%s", want, rc, out, sshd.Output())
	}
}
