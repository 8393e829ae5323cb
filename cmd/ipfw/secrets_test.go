package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestAsProgram is no test: it is ipfw, in a process of its own, for those below.
func TestAsProgram(t *testing.T) {
	if args := os.Getenv("IPFW_TEST_ARGS"); args != "" {
		os.Exit(newApp().execute(strings.Fields(args)))
	}
}

// Every command that reads private keys, or the key files of a policy, takes
// shelter before, and those that read none do not.
func TestShelterTaken(t *testing.T) {
	for _, c := range []struct {
		args string
		want int
	}{
		{"run -c -", 1}, {"pki key --dir nowhere/at/all ../x", 1}, {"pki init --dir /dev/null/x", 1}, {"pki issue a --dir /nowhere", 1},
		{"pki revoke a --dir /nowhere", 1}, {"pki crl --dir /nowhere", 1}, {"pki bundle a --for apple --gateway b --dir /nowhere", 1},
		{"sas --wireshark-keys --socket /nowhere", 1}, {"validate /nowhere", 1}, {"explain -c /nowhere " + strings.Fields(ndp)[0], 1},
		{"test /nowhere", 1}, {"fmt /nowhere", 0}, {"status --socket /nowhere", 0},
	} {
		n := 0
		a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard, getenv: func(string) string { return "" }, now: time.Now,
			shelter: func() error { n++; return nil }}
		a.execute(strings.Fields(c.args))
		if n != c.want {
			t.Errorf("ipfw %s: %d times, want %d", c.args, n, c.want)
		}
	}
}

// A daemon writes no core file, lets nobody of its user read its memory, and
// locks it where it may. It is caught while it waits for a policy.
func TestShelter(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "ipfw")
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // for the other user
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, text, 0o755); err != nil {
		t.Fatal(err)
	}
	const other = 65534
	for name, attr := range map[string]*syscall.SysProcAttr{
		"root":         {Pdeathsig: syscall.SIGKILL},
		"another user": {Pdeathsig: syscall.SIGKILL, Credential: &syscall.Credential{Uid: other, Gid: other}, AmbientCaps: []uintptr{unix.CAP_NET_ADMIN}},
	} {
		t.Run(name, func(t *testing.T) {
			c := exec.Command(program, "-test.run=^TestAsProgram$")
			c.Dir, c.SysProcAttr = dir, attr
			c.Env = []string{"IPFW_TEST_ARGS=run -c - --state= --socket=" + filepath.Join(dir, "sock")}
			in, err := c.StdinPipe() // the policy, which does not come
			if err != nil {
				t.Fatal(err)
			}
			var said strings.Builder
			c.Stderr = &said
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- c.Wait() }()
			defer func() { in.Close(); <-ended }()
			proc := "/proc/" + strconv.Itoa(c.Process.Pid)
			locked := func() bool {
				status, _ := os.ReadFile(proc + "/status")
				_, rest, _ := strings.Cut(string(status), "VmLck:")
				return !strings.HasPrefix(strings.TrimSpace(rest), "0 kB") && rest != ""
			}
			noCore := func() bool {
				limits, _ := os.ReadFile(proc + "/limits")
				for line := range strings.Lines(string(limits)) {
					if f := strings.Fields(strings.TrimPrefix(line, "Max core file size")); strings.HasPrefix(line, "Max core") {
						return f[0] == "0" && f[1] == "0"
					}
				}
				return false
			}
			hidden := func() bool { // proc(5): what cannot be dumped belongs to root
				info, err := os.Stat(proc + "/mem")
				return err == nil && info.Sys().(*syscall.Stat_t).Uid == 0
			}
			wantLock := attr.Credential == nil && mayLock()
			end := time.Now().Add(30 * time.Second)
			for !noCore() || !hidden() || wantLock && !locked() {
				if time.Now().After(end) {
					t.Fatalf("no core file: %v, memory hidden: %v, locked: %v (want %v)", noCore(), hidden(), locked(), wantLock)
				}
				time.Sleep(10 * time.Millisecond)
			}
			if attr.Credential != nil && locked() {
				t.Error("memory is locked under a limit: the next mmap may fail")
			}
		})
	}
}

// mayLock says whether this process could lock all of its memory.
func mayLock() bool {
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit)
	if err != nil || limit.Cur == unix.RLIM_INFINITY {
		return err == nil
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	users, _ := os.ReadFile("/proc/self/uid_map")
	return unix.Capget(&hdr, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_IPC_LOCK) != 0 &&
		strings.Join(strings.Fields(string(users)), " ") == "0 0 4294967295"
}
