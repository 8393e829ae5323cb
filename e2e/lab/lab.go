// Package lab makes hosts for end-to-end tests: network namespaces joined by
// veth pairs, with real programs and real ipfw daemons in them.
//
//	   client                        server
//	+----------+    10.77.0.0/24  +----------+
//	| c0 .2 ---|------------------|--- s0 .1 |
//	+----------+ fd77::/64        +----------+
//
// Names carry the process id and a number of their own, so that labs do not
// meet. Everything is removed when its test ends, and what a test that is killed
// or runs into its time cannot remove goes with the test binary: see Main.
//
// Limits: root and Linux only; a test that needs a lab calls New first, which
// skips (loudly; under CI it fails) where one cannot be had.
package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Lab is a set of hosts that live as long as their test.
type Lab struct {
	testing.TB
	Dir      string // for files of this test
	hosts    []*Host
	veths    int
	captures int
	// offload is what the policy blocks of the lab's files say.
	offload string
}

// Host is one network namespace.
type Host struct {
	lab  *Lab
	Name string // as the test calls it
	NS   string // as the kernel calls it
	// Program is the path of the ipfw that IPFW starts here; empty: Binary's.
	Program string
}

var labs atomic.Int32

// New begins a lab. Without root there is none: the test is skipped, which is
// a failure when CI is set, because there nothing may be skipped.
func New(t testing.TB) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		Skip(t, "needs root to make network namespaces")
	}
	if !contained() {
		t.Fatal("the package's TestMain does not run its tests by lab.Main")
	}
	Need(t, "ip")
	return &Lab{TB: t, Dir: shortDir(t), offload: offloadOf(t)}
}

// shortDir makes a temporary folder whose name is not the test's: sockets are in
// it, and their paths have 107 bytes (unix(7)).
func shortDir(t testing.TB) string {
	t.Helper()
	if !testing.Testing() { // the benchmark has folders of its own
		return t.TempDir()
	}
	dir, err := os.MkdirTemp("", "lab-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	// Daemons that have dropped their rights read there.
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Skip says loudly that a test cannot run here, and fails it under CI.
func Skip(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("on CI nothing may be skipped: %s", why)
	}
	t.Skipf("SKIPPED: %s", why)
}

// Need skips the test unless the programs are installed (make test installs
// them when it is root).
func Need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			Skip(t, p+" is not installed; `make test` as root installs it")
		}
	}
}

// Host makes a namespace with loopback up.
func (l *Lab) Host(name string) *Host {
	l.Helper()
	h := &Host{lab: l, Name: name, NS: fmt.Sprintf("ipfwlab%d-%d-%s", os.Getpid(), labs.Add(1), name)}
	l.run("ip", "netns", "add", h.NS)
	l.Cleanup(func() {
		h.killAll()
		_ = exec.Command("ip", "netns", "del", h.NS).Run()
	})
	l.hosts = append(l.hosts, h)
	h.Run("ip", "link", "set", "lo", "up")
	// Addresses are usable at once: no duplicate address detection.
	h.Sysctl("net.ipv6.conf.all.accept_dad", "0")
	h.Sysctl("net.ipv6.conf.default.accept_dad", "0")
	return h
}

// Join connects two hosts by a veth pair and gives each end its addresses in
// CIDR form. It returns when both ends send and take what is for them.
func (l *Lab) Join(a *Host, aIf string, aAddrs []string, b *Host, bIf string, bAddrs []string) {
	l.Helper()
	l.veths++
	l.run("ip", "link", "add", aIf, "netns", a.NS, "type", "veth", "peer", "name", bIf, "netns", b.NS)
	ends := []struct {
		h     *Host
		dev   string
		addrs []string
	}{{a, aIf, aAddrs}, {b, bIf, bAddrs}}
	for _, end := range ends {
		for _, addr := range end.addrs {
			args := []string{"ip", "addr", "add", addr, "dev", end.dev}
			if strings.Contains(addr, ":") {
				args = append(args, "nodad")
			}
			end.h.Run(args...)
		}
		end.h.Run("ip", "link", "set", end.dev, "up")
	}
	for _, end := range ends {
		l.awaitIPv6(end.h.Run, end.dev, end.addrs)
	}
}

// awaitIPv6 waits until a link that is up takes what is for its addresses, in
// CIDR form, and hears neighbour solicitations. The kernel does its part of both
// later, when it has seen the carrier; a first packet has but three solicitations.
func (l *Lab) awaitIPv6(run func(args ...string) string, dev string, addrs []string) {
	l.Helper()
	var want []string
	for _, a := range addrs {
		if p := netip.MustParsePrefix(a); p.Addr().Is6() {
			want = append(want, "local "+p.Addr().String()+" dev")
		}
	}
	if want == nil {
		return
	}
	want = append(want, "ff00::/8 dev "+dev+" ")
	l.Eventually(Patience, "IPv6 by "+dev, func() bool {
		routes := run("ip", "-6", "route", "show", "table", "local")
		return !slices.ContainsFunc(want, func(w string) bool { return !strings.Contains(routes, w) })
	})
}

// Pair makes the client and server of most tests: 10.77.0.2 and fd77::2 by c0,
// 10.77.0.1 and fd77::1 by s0.
func Pair(t testing.TB) (l *Lab, client, server *Host) {
	t.Helper()
	l = New(t)
	client, server = l.Host("client"), l.Host("server")
	l.Join(client, "c0", []string{"10.77.0.2/24", "fd77::2/64"}, server, "s0", []string{"10.77.0.1/24", "fd77::1/64"})
	return l, client, server
}

// run runs a command on the machine itself; it must succeed.
func (l *Lab) run(args ...string) string {
	l.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		l.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// File writes a file of the test and gives its path.
func (l *Lab) File(name, content string) string {
	l.Helper()
	path := filepath.Join(l.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		l.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(l.withOffload(content)), 0o600); err != nil {
		l.Fatal(err)
	}
	return path
}

// Patience is how long a test waits for what must come. It is no measure of how
// long that takes: on a machine with ten times as much to do everything comes
// ten times later, in a guest of e2e/vm another ten times, and a test that waits in
// vain has failed anyway.
const Patience = 4 * time.Minute

// Eventually calls ok until it is true or the time is over.
func (l *Lab) Eventually(limit time.Duration, what string, ok func() bool) {
	l.Helper()
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
	}
	l.Fatalf("not within %v: %s", limit, what)
}

// Command is a command that will run in the host's namespace. No Pdeathsig: it
// would strike when the thread that started the command ends, and tests let
// threads end with the namespace they entered.
func (h *Host) Command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", h.NS}, args...)...)
}

// Run runs a command in the host, which must succeed, and
// gives what it printed.
func (h *Host) Run(args ...string) string {
	h.lab.Helper()
	out, err := h.Try(Patience, args...)
	if err != nil {
		h.lab.Fatalf("%s: %s: %v\n%s", h.Name, strings.Join(args, " "), err, out)
	}
	return out
}

// Try runs a command in the host and gives what it printed, on both streams,
// and how it ended.
func (h *Host) Try(limit time.Duration, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	out, err := h.Command(ctx, args...).CombinedOutput()
	if ctx.Err() != nil {
		err = errors.Join(err, fmt.Errorf("took longer than %v", limit))
	}
	return string(out), err
}

// Sysctl sets a kernel variable of the host.
func (h *Host) Sysctl(name, value string) {
	h.lab.Helper()
	h.Run("sh", "-c", fmt.Sprintf("echo %s > /proc/sys/%s", value, strings.ReplaceAll(name, ".", "/")))
}

// Process is a program that runs in a host until the test, or Stop, ends it.
type Process struct {
	Cmd  *exec.Cmd
	out  lockedBuffer
	done chan struct{}
	err  error
}

// Start starts a program in the background.
func (h *Host) Start(args ...string) *Process {
	h.lab.Helper()
	p := &Process{done: make(chan struct{})}
	p.Cmd = h.Command(context.Background(), args...)
	p.Cmd.Stdout, p.Cmd.Stderr = &p.out, &p.out
	if err := p.Cmd.Start(); err != nil {
		h.lab.Fatalf("%s: %s: %v", h.Name, strings.Join(args, " "), err)
	}
	go func() { p.err = p.Cmd.Wait(); close(p.done) }()
	h.lab.Cleanup(func() { p.Kill() })
	return p
}

// Signal sends a signal to the program.
func (p *Process) Signal(s syscall.Signal) { _ = p.Cmd.Process.Signal(s) }

// Kill ends the program with SIGKILL and waits for it.
func (p *Process) Kill() { p.Signal(syscall.SIGKILL); <-p.done }

// Wait waits for the program's own end, and gives its error, or says that it
// is still running when the time is over.
func (p *Process) Wait(limit time.Duration) error {
	select {
	case <-p.done:
		return p.err
	case <-time.After(limit):
		return fmt.Errorf("still running after %v", limit)
	}
}

// Output is what the program has printed so far, on both streams.
func (p *Process) Output() string { return p.out.String() }

// killAll ends whatever still lives in the namespace, so that it can go.
func (h *Host) killAll() {
	out, err := exec.Command("ip", "netns", "pids", h.NS).Output()
	if err != nil {
		return
	}
	for _, pid := range bytes.Fields(out) {
		var n int
		if _, err := fmt.Sscan(string(pid), &n); err == nil && n > 1 && n != os.Getpid() { // a thread of the test may be in there
			_ = syscall.Kill(n, syscall.SIGKILL)
		}
	}
}
