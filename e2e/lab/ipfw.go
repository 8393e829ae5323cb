package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// binaryDir is where binary has put it; "": not built.
var binaryDir string

// binary builds ipfw once for the test binary.
var binary = sync.OnceValues(func() (string, error) {
	for _, name := range []string{BinaryEnv, BuiltEnv} {
		if path := os.Getenv(name); path != "" {
			return path, nil
		}
	}
	dir, err := os.MkdirTemp("", "ipfw-e2e-")
	if err != nil {
		return "", err
	}
	binaryDir = dir
	path := filepath.Join(dir, "ipfw")
	out, err := exec.Command("go", "build", "-o", path, "github.com/ipfw/ipfw/cmd/ipfw").CombinedOutput()
	if err != nil {
		return "", &buildError{out: string(out), err: err}
	}
	return path, nil
})

type buildError struct {
	out string
	err error
}

func (e *buildError) Error() string { return "building ipfw: " + e.err.Error() + "\n" + e.out }

// BinaryEnv is an environment variable that names an ipfw to test in place of the
// one that this tree makes: to see what an older one does.
const BinaryEnv = "IPFW_E2E_BINARY"

// BuiltEnv is an environment variable that names the ipfw that this tree makes,
// where somebody has built it already.
const BuiltEnv = "IPFW_E2E_BUILT"

// Binary gives the path of the ipfw under test, built from this tree unless
// BinaryEnv names another.
func Binary(t testing.TB) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// RemoveBinary removes what Binary built, if it did.
func RemoveBinary() {
	if binaryDir != "" {
		_ = os.RemoveAll(binaryDir)
	}
}

// Daemon is an ipfw that runs in a host.
type Daemon struct {
	*Process
	host   *Host
	Socket string
}

// program is the path of the ipfw of this host.
func (h *Host) program() string {
	h.lab.Helper()
	if h.Program != "" {
		return h.Program
	}
	return Binary(h.lab)
}

// IPFW starts the daemon in the host and waits until it says that it is ready.
func (h *Host) IPFW(policy string, args ...string) *Daemon {
	h.lab.Helper()
	return h.IPFWUnder(nil, policy, args...)
}

// IPFWUnder is IPFW for a daemon that another program starts, as setpriv does.
func (h *Host) IPFWUnder(starter []string, policy string, args ...string) *Daemon {
	h.lab.Helper()
	d := h.StartIPFWUnder(starter, policy, args...)
	d.Ready(Patience)
	return d
}

// Ready waits until the daemon says that it is ready. It is not asked before its
// socket is there, nor all the time then: each question is a program that takes
// a slow host's one processor from who is to answer.
func (d *Daemon) Ready(limit time.Duration) {
	l := d.host.lab
	l.Helper()
	end := time.Now().Add(limit)
	for pause := 20 * time.Millisecond; ; {
		if _, err := os.Stat(d.Socket); err == nil {
			if _, err = d.host.Try(limit, d.host.program(), "status", "--socket", d.Socket); err == nil {
				return
			}
			pause = min(2*pause, 5*time.Second)
		}
		if time.Now().After(end) {
			l.Fatalf("not within %v: ipfw is ready\n%s", limit, d.Output())
		}
		select {
		case <-d.done:
			l.Fatalf("ipfw ended: %v\n%s", d.err, d.Output())
		case <-time.After(pause):
		}
	}
}

// StartIPFW starts the daemon and does not wait.
func (h *Host) StartIPFW(policy string, args ...string) *Daemon {
	h.lab.Helper()
	return h.StartIPFWUnder(nil, policy, args...)
}

// StartIPFWUnder is StartIPFW for a daemon that another program starts.
func (h *Host) StartIPFWUnder(starter []string, policy string, args ...string) *Daemon {
	h.lab.Helper()
	if name, ok := strings.CutPrefix(policy, "profile:"); ok {
		policy = h.lab.profile(name)
	}
	socket := filepath.Join(h.lab.Dir, h.Name+".sock")
	all := append(slices.Clone(starter), h.program(), "run", "-c", policy, "--socket", socket, "--state", filepath.Join(h.lab.Dir, h.Name+".state"))
	all = append(all, h.force()...)
	return &Daemon{Process: h.Start(append(all, args...)...), host: h, Socket: socket}
}

// LittleMemory starts a program on what for it is a host with so many MB of memory.
func (l *Lab) LittleMemory(mb int) (starter []string) {
	l.Helper()
	file := l.File("meminfo", fmt.Sprintf("MemTotal: %d kB\n", mb<<10))
	// `ip netns exec` has made mounts of its own for it.
	return []string{"sh", "-c", `mount --bind "$0" /proc/meminfo && exec "$@"`, file}
}

// PeakMemory is how much memory a process has had at most, in kB.
func PeakMemory(t testing.TB, pid int) (kb int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(b), "VmHWM:")
	if _, err := fmt.Sscan(after, &kb); err != nil {
		t.Fatalf("process %d has no VmHWM: %v", pid, err)
	}
	return kb
}

// force is what has ipfw cut connections of whoever starts it: a test, which may be
// at both ends of those that it looks at. Other versions of ipfw do not ask for it.
func (h *Host) force() []string {
	if h.Program != "" || os.Getenv(BinaryEnv) != "" {
		return nil
	}
	return []string{"--force"}
}

// Ask runs a command of ipfw against the daemon.
func (d *Daemon) Ask(args ...string) string {
	d.host.lab.Helper()
	if args[0] == "reload" {
		args = append(slices.Clone(args), d.host.force()...)
	}
	return d.host.Run(append([]string{d.host.program()}, append(args, "--socket", d.Socket)...)...)
}
