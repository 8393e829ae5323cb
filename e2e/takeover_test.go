package e2e

import (
	"bufio"
	"fmt"
	"net"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"github.com/ipfw/ipfw/e2e/lab"
)

// twoPorts lets in TCP on 7001 and, if second is set, on 7002.
func twoPorts(second bool, extra string) string {
	ports := "[7001]"
	if second {
		ports = "[7001, 7002]"
	}
	return fmt.Sprintf(`
policy {
  inbound  = "discard"
  outbound = "bypass"
  %s
}
rule "echo" {
  action     = "bypass"
  direction  = "in"
  protocol   = "tcp"
  local_port = %s
}
`, extra, ports)
}

// within runs f on a thread in the host's namespace.
func within(t *testing.T, h *lab.Host, f func() error) error {
	t.Helper()
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread dies with its namespace
		ns, err := netns.GetFromName(h.NS)
		if err == nil {
			defer ns.Close()
			err = netns.Set(ns)
		}
		if err == nil {
			err = f()
		}
		result <- err
	}()
	return <-result
}

// echoServer answers every line with the same line, in the host.
func echoServer(t *testing.T, h *lab.Host, port int) {
	t.Helper()
	var ln net.Listener
	if err := within(t, h, func() (err error) {
		ln, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 64<<10)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					if _, err := c.Write(buf[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
}

// session is one TCP connection that sends a line every few milliseconds and
// wants it back.
type session struct {
	conn   net.Conn
	rounds atomic.Int64
	failed atomic.Pointer[error]
}

func openSession(t *testing.T, from *lab.Host, address string) (*session, error) {
	t.Helper()
	s := new(session)
	err := within(t, from, func() (err error) {
		s.conn, err = net.DialTimeout("tcp", address, 3*time.Second)
		return err
	})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { s.conn.Close() })
	go func() {
		r := bufio.NewReader(s.conn)
		for i := 0; ; i++ {
			line := fmt.Sprintf("line %d\n", i)
			_, err := s.conn.Write([]byte(line))
			if err == nil {
				var got string
				if got, err = r.ReadString('\n'); err == nil && got != line {
					err = fmt.Errorf("sent %q, got %q", line, got)
				}
			}
			if err != nil {
				s.failed.Store(&err)
				return
			}
			s.rounds.Add(1)
			time.Sleep(2 * time.Millisecond)
		}
	}()
	return s, nil
}

// moves says whether the session carries lines within the time.
func (s *session) moves(limit time.Duration) bool {
	was := s.rounds.Load()
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if s.rounds.Load() > was+2 {
			return true
		}
	}
	return false
}

func mustOpen(t *testing.T, from *lab.Host, address string) *session {
	t.Helper()
	s, err := openSession(t, from, address)
	for end := time.Now().Add(waitLong); err != nil; s, err = openSession(t, from, address) {
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	if !s.moves(waitLong) {
		t.Fatalf("%s: the session does not move after %d rounds", address, s.rounds.Load())
	}
	return s
}

func addresses(port int) []string {
	return []string{fmt.Sprintf("10.77.0.1:%d", port), fmt.Sprintf("[fd77::1]:%d", port)}
}

// A reload keeps the flows that the new policy lets pass, cuts those that it
// does not, and a bad policy changes nothing.
func TestReloadUnderLoad(t *testing.T) { lab.EachOffload(t, tryReloadUnderLoad) }

func tryReloadUnderLoad(t *testing.T, _ string) {
	l, client, server := lab.Pair(t)
	echoServer(t, server, 7001)
	echoServer(t, server, 7002)
	policy := l.File("policy.hcl", twoPorts(true, ""))
	d := server.IPFW(policy)
	var keep, cut []*session
	for i := range 10 {
		keep = append(keep, mustOpen(t, client, addresses(7001)[i%2]))
		cut = append(cut, mustOpen(t, client, addresses(7002)[i%2]))
	}

	l.File("policy.hcl", "policy { inbound = \"discrad\" }\n")
	d.Signal(syscall.SIGHUP)
	time.Sleep(500 * time.Millisecond)
	for i := range keep {
		if !keep[i].moves(waitLong) || !cut[i].moves(waitLong) {
			t.Fatalf("a bad policy has changed something:\n%s", d.Output())
		}
	}

	for i := range 10 { // reload on reload
		l.File("policy.hcl", twoPorts(true, fmt.Sprintf("# %d", i)))
		d.Signal(syscall.SIGHUP)
		time.Sleep(50 * time.Millisecond)
	}
	l.File("policy.hcl", twoPorts(false, ""))
	d.Signal(syscall.SIGHUP)
	l.Eventually(waitLong, "the flows that the new policy forbids stand still", func() bool {
		for _, s := range cut {
			if s.moves(300 * time.Millisecond) {
				return false
			}
		}
		return true
	})
	for i, s := range keep {
		if !s.moves(waitLong) {
			t.Errorf("session %d was lost", i)
		}
	}
	if _, err := openSession(t, client, "10.77.0.1:7002"); err == nil {
		t.Error("the port that the new policy shuts is open")
	}
}

// kill -9 leaves the host shut for what is new; a new daemon takes the flows
// over, and looks each of them up again.
func TestKillAndTakeOver(t *testing.T) { lab.EachOffload(t, tryKillAndTakeOver) }

func tryKillAndTakeOver(t *testing.T, way string) {
	l, client, server := lab.Pair(t)
	echoServer(t, server, 7001)
	echoServer(t, server, 7002)
	echoServer(t, client, 7003) // a flow that the server opens
	d := server.IPFW(l.File("policy.hcl", twoPorts(true, "")))
	var keep, cut []*session
	for i := range 6 {
		keep = append(keep, mustOpen(t, client, addresses(7001)[i%2]))
		cut = append(cut, mustOpen(t, client, addresses(7002)[i%2]))
	}
	keep = append(keep, mustOpen(t, server, "10.77.0.2:7003"), mustOpen(t, server, "[fd77::2]:7003"))

	d.Kill()
	if _, err := openSession(t, client, "10.77.0.1:7001"); err == nil {
		t.Error("a new flow gets in while the daemon is dead")
	}
	// What the kernel answers for goes on as the policy in force has said;
	// what must come up does not.
	for _, s := range append(keep, cut...) {
		if moves := s.moves(300 * time.Millisecond); moves != (way == "flow") {
			t.Errorf("while the daemon is dead and the policy says closed, a flow goes on: %v, with offload %q", moves, way)
		}
	}
	server.IPFW(l.File("policy.hcl", twoPorts(false, "")))
	for i, s := range keep {
		if !s.moves(waitLong) {
			t.Errorf("session %d did not survive the restart (%v)", i, s.failed.Load())
		}
	}
	for i, s := range cut {
		if s.moves(300 * time.Millisecond) {
			t.Errorf("session %d goes on, and the new policy forbids it", i)
		}
	}
	if _, err := openSession(t, client, "10.77.0.1:7001"); err != nil {
		t.Errorf("the new daemon lets no new flow in: %v", err)
	}
}

// on_failure = "open": a dead daemon leaves the host as if it had no firewall.
func TestKillWithOnFailureOpen(t *testing.T) {
	t.Parallel()
	lab.EachOffload(t, tryKillWithOnFailureOpen)
}

func tryKillWithOnFailureOpen(t *testing.T, _ string) {
	l, client, server := lab.Pair(t)
	echoServer(t, server, 7001)
	echoServer(t, server, 7002)
	d := server.IPFW(l.File("policy.hcl", twoPorts(false, `on_failure = "open"`)))
	s := mustOpen(t, client, "10.77.0.1:7001")
	if _, err := openSession(t, client, "10.77.0.1:7002"); err == nil {
		t.Error("7002 is open while the daemon lives")
	}
	d.Kill()
	if !s.moves(waitLong) {
		t.Error("the flow stands still, and the policy says open")
	}
	mustOpen(t, client, "10.77.0.1:7002")
}

// SIGTERM takes the firewall away, unless it is told to leave the host shut.
func TestStop(t *testing.T) {
	t.Parallel()
	lab.EachOffload(t, tryStop)
}

func tryStop(t *testing.T, _ string) {
	l, client, server := lab.Pair(t)
	echoServer(t, server, 7001)
	echoServer(t, server, 7002)
	policy := l.File("policy.hcl", twoPorts(false, ""))
	d := server.IPFW(policy)
	d.Signal(syscall.SIGTERM)
	if err := d.Wait(5 * time.Second); err != nil {
		t.Fatalf("SIGTERM: %v\n%s", err, d.Output())
	}
	mustOpen(t, client, "10.77.0.1:7002")

	d = server.IPFW(policy, "--stay-shut")
	d.Signal(syscall.SIGTERM)
	if err := d.Wait(5 * time.Second); err != nil {
		t.Fatalf("SIGTERM: %v\n%s", err, d.Output())
	}
	if _, err := openSession(t, client, "10.77.0.1:7001"); err == nil {
		t.Error("the host was to stay shut, and is open")
	}
}
