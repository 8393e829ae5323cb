package lab

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What tests make must not outlive them, and a test that runs into its time,
// panics or is killed calls no Cleanup. So the kernel removes it. A test
// binary that root starts runs itself once more, as the second process of a
// PID namespace and a mount namespace of its own (namespaces(7)):
//
//	go test --> binary --> binary, process 1 --> binary, the tests --> all that they start
//	            waits      reaps                 m.Run
//
// When the tests end, process 1 ends; when the waiting binary is killed,
// process 1 gets SIGKILL as well. With process 1 the kernel kills whatever is
// in the PID namespace. The named network namespaces (/run/netns) and temporary
// files (TMPDIR) are in file systems that only the mount namespace has, so they
// go with its last process, and with a network namespace go its interfaces.
//
// To look at a test from outside: nsenter --target PID --mount --pid, with the
// PID of any program of it.

// containVariable says to a test binary which of the three it is; unset: the
// first.
const (
	containVariable = "IPFW_LAB_CONTAINED"
	containInit     = "init"
	containTests    = "tests"
)

// tempFolder is where the file system for temporary files is mounted.
const tempFolder = "/var/cache/ipfw-e2e/tmp"

// Main is what a TestMain does in a package whose tests make hosts or start
// programs: it runs the tests so that nothing of theirs is left, whatever their
// end, and gives the exit status. It is called before anything is made. Without
// root, or where the kernel permits no namespaces, it only runs the tests.
func Main(m *testing.M) int {
	as := os.Getenv(containVariable)
	status, err := 0, error(nil)
	switch {
	case as == containInit:
		status, err = containedInit()
	case as == "" && os.Geteuid() == 0:
		if status, err = contain(); !errors.Is(err, unix.EPERM) {
			break
		}
		err = os.Setenv(containVariable, containTests) // root without its rights: Host will say so
		fallthrough
	default:
		if err == nil {
			defer RemoveBinary()
			return m.Run()
		}
	}
	if err != nil {
		slog.Error("running tests in namespaces of their own", "error", err)
		return 1
	}
	return status
}

// contain starts process 1 and waits for its end.
func contain() (int, error) {
	for _, dir := range []string{tempFolder, "/run/netns"} { // to mount on
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return 0, err
		}
	}
	runtime.LockOSThread() // Pdeathsig is about the thread that forks: this one stays
	defer runtime.UnlockOSThread()
	pid, err := again(containInit, &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL})
	if err != nil {
		return 0, err
	}
	go endWithGo(pid)
	return reap(pid)
}

// again starts this program with its arguments once more, as one of the three.
func again(as string, sys *syscall.SysProcAttr) (pid int, err error) {
	// Of two variables with one name the first would count.
	env := append([]string{containVariable + "=" + as}, os.Environ()...)
	if as == containTests {
		env = append([]string{"TMPDIR=" + tempFolder}, env...)
	}
	pid, _, err = syscall.StartProcess("/proc/self/exe", os.Args, &syscall.ProcAttr{Env: env, Files: []uintptr{0, 1, 2}, Sys: sys})
	return pid, err
}

// reap waits until a child has ended, and for whatever else this process has
// or gets for a child. Signals that end a test binary are passed on to the
// child: go test sends SIGQUIT when the time is over, and wants to see the
// stacks. It gives the status that a shell would give.
func reap(child int) (int, error) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	go func() {
		for s := range signals {
			_ = syscall.Kill(child, s.(syscall.Signal)) // a child that has ended needs none
		}
	}()
	for {
		var s syscall.WaitStatus
		switch pid, err := syscall.Wait4(-1, &s, 0, nil); {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, fmt.Errorf("waiting: %w", err)
		case pid == child && s.Signaled():
			return 128 + int(s.Signal()), nil
		case pid == child && s.Exited():
			return s.ExitStatus(), nil
		}
	}
}

// endWithGo ends the tests when the go command that started them is gone.
func endWithGo(tests int) {
	parent := os.Getppid()
	if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", parent)); err != nil || string(name) != "go\n" {
		return
	}
	for os.Getppid() == parent {
		time.Sleep(time.Second)
	}
	_ = syscall.Kill(tests, syscall.SIGKILL)
}

// containedInit is process 1: it mounts, and starts the tests.
func containedInit() (int, error) {
	if err := containedMounts(); err != nil {
		return 0, err
	}
	pid, err := again(containTests, nil)
	if err != nil {
		return 0, err
	}
	return reap(pid)
}

// containedMounts makes the mounts of this process private, and mounts what
// only the tests are to see.
func containedMounts() error {
	for _, m := range []struct {
		what, where, kind, options string
		flags                      uintptr
	}{
		{where: "/", flags: unix.MS_REC | unix.MS_PRIVATE},
		{what: "proc", where: "/proc", kind: "proc", flags: unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{what: "netns", where: "/run/netns", kind: "tmpfs", options: "mode=755"},
		{what: "tests", where: tempFolder, kind: "tmpfs", options: "mode=1777"},
	} {
		if err := unix.Mount(m.what, m.where, m.kind, m.flags, m.options); err != nil {
			return fmt.Errorf("mount %s: %w", m.where, err)
		}
	}
	return nil
}

// contained says whether TestMain has seen to it that nothing is left.
func contained() bool { return !testing.Testing() || os.Getenv(containVariable) == containTests }
