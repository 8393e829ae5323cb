package e2e

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
	"golang.org/x/sys/unix"
)

// Nobody cuts the session that they sit in without saying so: reload, run and shut
// find it by the process that asks and those above it. Here that is the test, which
// has the server's ends of the sessions open, as sshd has.
func TestOwnSessionIsNotCut(t *testing.T) {
	l, client, server := lab.Pair(t)
	echoServer(t, server, 7001)
	echoServer(t, server, 7002)
	policy := l.File("policy.hcl", twoPorts(true, ""))
	narrow := twoPorts(false, "")
	ipfw := lab.Binary(t)
	var mine []*session
	for _, a := range addresses(7002) {
		mine = append(mine, mustOpen(t, client, a))
	}
	goOn := func(when string) {
		t.Helper()
		for i, s := range mine {
			if !s.moves(waitLong) {
				t.Fatalf("%s: session %d does not go on", when, i)
			}
		}
	}
	refused := func(when string, args ...string) {
		t.Helper()
		out, err := server.Try(waitLong, append([]string{ipfw}, args...)...)
		if err == nil || !strings.Contains(out, "your own sessions") || !strings.Contains(out, "--force") ||
			!strings.Contains(out, "10.77.0.1:7002") || !strings.Contains(out, "[fd77::1]:7002") {
			t.Fatalf("%s: %v\n%s", when, err, out)
		}
		goOn(when)
	}
	// Before anything is in force.
	first := l.File("first.hcl", narrow)
	socket := l.Dir + "/other.sock"
	refused("run", "run", "-c", first, "--socket", socket, "--state", "")
	refused("shut", "shut", "-c", first, "--socket", socket)
	if out, err := server.Try(waitLong, "nft", "list", "tables"); err != nil || strings.Contains(out, "ipfw") {
		t.Fatalf("what was refused has left a table: %v\n%s", err, out)
	}

	d := server.IPFW(policy)
	goOn("start")
	if err := os.WriteFile(policy, []byte(narrow), 0o600); err != nil {
		t.Fatal(err)
	}
	refused("reload", "reload", "--socket", d.Socket)
	if out := d.Ask("status"); !strings.Contains(out, "generation 1,") {
		t.Errorf("a refused reload is in force:\n%s", out)
	}
	out := server.Run(ipfw, "reload", "--confirm", "2s", "--socket", d.Socket)
	for _, want := range []string{policy, "1 rule and", `Changed rule "echo"`, "flows are cut:", "your own session is cut", "10.77.0.1:7002, by (inbound default)", "[fd77::1]:7002, by (inbound default)"} {
		if !strings.Contains(out, want) {
			t.Errorf("the reload does not say %q:\n%s", want, out)
		}
	}
	l.Eventually(waitLong, "nobody confirms, and the old policy comes back", func() bool { return strings.Contains(d.Ask("events"), "rollback") })
	goOn("rollback")
	if out := d.Ask("status"); !strings.Contains(out, policy+" may still hold the other one") {
		t.Errorf("status after the rollback:\n%s", out)
	}
	out = server.Run(ipfw, "reload", "--force", "--socket", d.Socket)
	if !strings.Contains(out, "your own session is cut") {
		t.Errorf("with force:\n%s", out)
	}
	for i, s := range mine {
		if s.moves(time.Second) {
			t.Errorf("session %d goes on under a policy that cuts it", i)
		}
	}
}

// A daemon that was stopped is told of in seconds, and goes on with what it was
// asked for.
func TestStoppedDaemonIsTold(t *testing.T) {
	l, _, server := lab.Pair(t)
	d := server.IPFW(l.File("policy.hcl", twoPorts(true, "")))
	d.Signal(syscall.SIGSTOP)
	began := time.Now()
	out, err := server.Try(waitLong, lab.Binary(t), "status", "--socket", d.Socket)
	took := time.Since(began)
	if err == nil || !strings.Contains(out, "does not answer") || !strings.Contains(out, "is stopped") || !strings.Contains(out, fmt.Sprint(d.Cmd.Process.Pid)) {
		t.Errorf("status: %v\n%s", err, out)
	}
	t.Logf("told after %v", took)
	reload := server.Start(lab.Binary(t), "reload", "--force", "--socket", d.Socket)
	l.Eventually(waitLong, "the reload says that it waits", func() bool { return strings.Contains(reload.Output(), "this waits for it") })
	d.Signal(syscall.SIGCONT)
	if err := reload.Wait(waitLong); err != nil || !strings.Contains(reload.Output(), "generation 2") {
		t.Errorf("reload: %v\n%s", err, reload.Output())
	}
}

// A daemon whose terminal goes away, as when an ssh connection breaks, does not take
// that for the wish to reload, and one whose log nobody reads any more goes on too.
func TestDaemonOutlivesItsTerminal(t *testing.T) {
	l, _, server := lab.Pair(t)
	policy := l.File("policy.hcl", twoPorts(true, ""))
	socket := l.Dir + "/t.sock"
	status := func() (string, error) { return server.Try(waitLong, lab.Binary(t), "status", "--socket", socket) }
	start := func(terminal *os.File, log *os.File) *exec.Cmd {
		t.Helper()
		cmd := server.Command(context.Background(), lab.Binary(t), "run", "-c", policy, "--socket", socket, "--state", "", "--force")
		cmd.Stdin, cmd.Stderr = terminal, log
		if terminal != nil {
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		l.Eventually(waitLong, "the daemon is ready", func() bool { _, err := status(); return err == nil })
		return cmd
	}
	generation := func(n int) bool {
		out, err := status()
		return err == nil && strings.Contains(out, fmt.Sprintf("generation %d,", n))
	}

	master, slave := terminal(t)
	logName := l.Dir + "/log"
	log, err := os.Create(logName)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := start(slave, log)
	slave.Close()
	master.Close() // hangs up
	l.Eventually(waitLong, "the daemon notices", func() bool {
		b, err := os.ReadFile(logName)
		return err == nil && strings.Contains(string(b), "the terminal is gone")
	})
	if !generation(1) {
		t.Error("a hang-up was taken for a reload")
	}
	l.Eventually(waitLong, "SIGHUP reloads after that", func() bool {
		_ = cmd.Process.Signal(syscall.SIGHUP)
		return !generation(1)
	})
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}

	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	start(nil, w)
	w.Close()
	if _, err := io.ReadFull(r, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	r.Close()
	for n := 2; n < 5; n++ { // each is logged
		if out, err := server.Try(waitLong, lab.Binary(t), "reload", "--force", "--socket", socket); err != nil || !generation(n) {
			t.Fatalf("reload %d: %v\n%s", n, err, out)
		}
	}
}

// terminal makes a pseudo-terminal.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close(); slave.Close() })
	return master, slave
}
