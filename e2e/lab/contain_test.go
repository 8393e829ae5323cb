package lab

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if was, err := Agent(nil); was {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
	os.Exit(Main(m))
}

// endVariable makes TestToBeEnded one: how it is to end.
const endVariable = "IPFW_LAB_TEST_END"

// allMade is what it prints then.
const allMade = "all made"

// TestToBeEnded makes one of everything and comes to no good end; TestNothingLeft
// starts it.
func TestToBeEnded(t *testing.T) {
	how := os.Getenv(endVariable)
	if how == "" {
		return
	}
	l, client, _ := Pair(t)
	// One end of this pair stays with who has started us.
	client.Run("ip", "link", "add", "inner", "type", "veth", "peer", "name", "outer", "netns", "1")
	client.Start("sleep", "1000")
	away := client.Command(t.Context(), "setsid", "sh", "-c", "trap '' INT TERM HUP QUIT; sleep 1000 & sleep 1000")
	if err := away.Start(); err != nil {
		t.Fatal(err)
	}
	client.Capture("c0", "ip")
	if _, err := exec.LookPath("linux.uml"); how == "kill" && err == nil {
		if err := os.Unsetenv(PeersVariable); err != nil { // it is the kernel that is tried here, not a peer
			t.Fatal(err)
		}
		l.Guest("guest").Start("sleep", "1000")
	}
	l.File("left.txt", "to be removed")
	fmt.Println(allMade)
	switch how {
	case "panic":
		go panic("as the test wants it")
	case "end":
		os.Exit(3)
	}
	time.Sleep(time.Hour)
}

// A test binary that is killed, runs into its time, panics or gets a signal
// leaves nothing: no process, no namespace, no file.
func TestNothingLeft(t *testing.T) {
	for _, row := range []struct {
		how    string
		status int // of the test binary
		end    func(t *testing.T, binary *os.Process, mark string)
	}{
		{"kill", -1, func(_ *testing.T, p *os.Process, _ string) { _ = p.Kill() }},
		{"interrupt", 130, func(_ *testing.T, p *os.Process, _ string) { _ = p.Signal(syscall.SIGINT) }},
		{"terminate", 143, func(_ *testing.T, p *os.Process, _ string) { _ = p.Signal(syscall.SIGTERM) }},
		{"quit", 2, func(_ *testing.T, p *os.Process, _ string) { _ = p.Signal(syscall.SIGQUIT) }},
		{"kill process 1", 137, func(t *testing.T, _ *os.Process, mark string) { killInner(t, mark, containInit) }},
		{"kill the tests", 137, func(t *testing.T, _ *os.Process, mark string) { killInner(t, mark, containTests) }},
		{"panic", 2, nil},
		{"end", 3, nil},
		{"time-out", 2, nil},
	} {
		t.Run(row.how, func(t *testing.T) {
			t.Parallel()
			h := New(t).Host("outside")
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			temp := t.TempDir()
			mark := endVariable + "=" + row.how
			args := []string{self, "-test.run", "^TestToBeEnded$", "-test.v"}
			if row.how == "time-out" {
				args = append(args, "-test.timeout", "10s")
			}
			cmd := h.Command(t.Context(), args...)
			for _, v := range os.Environ() {
				if !strings.HasPrefix(v, containVariable+"=") {
					cmd.Env = append(cmd.Env, v)
				}
			}
			cmd.Env = append(cmd.Env, mark, "TMPDIR="+temp)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd.Stderr = cmd.Stdout
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var said strings.Builder
			lines := bufio.NewScanner(out)
			for lines.Scan() {
				said.WriteString(lines.Text() + "\n")
				if lines.Text() == allMade && row.end != nil {
					h.lab.Eventually(Patience, "the binary three times, three that sleep, a shell and tcpdump", func() bool { return len(marked(t, mark)) >= 8 })
					if _, err := h.Try(Patience, "ip", "link", "show", "outer"); err != nil {
						t.Errorf("the interface to the inner namespace: %v", err)
					}
					row.end(t, cmd.Process, mark)
				}
			}
			_ = cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != row.status {
				t.Errorf("exit status %d, want %d", got, row.status)
			}
			if !strings.Contains(said.String(), allMade) {
				t.Errorf("it ended before it was to:\n%s", said.String())
			}
			h.lab.Eventually(Patience, "no process is left", func() bool { return len(marked(t, mark)) == 0 })
			h.lab.Eventually(Patience, "the namespaces are gone, and with them the interface to them", func() bool {
				_, err := h.Try(Patience, "ip", "link", "show", "outer")
				return err != nil
			})
			if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
				t.Errorf("left in the folder for temporary files: %v, %v", left, err)
			}
		})
	}
}

// marked are the processes with a variable in their environment.
func marked(t *testing.T, mark string) (pids []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		if b, err := os.ReadFile(path); err == nil && strings.Contains("\x00"+string(b), "\x00"+mark+"\x00") {
			pids = append(pids, filepath.Base(filepath.Dir(path)))
		}
	}
	return pids
}

// killInner kills the marked test binary that is one of the three.
func killInner(t *testing.T, mark, which string) {
	t.Helper()
	for _, pid := range marked(t, mark) {
		env, err := os.ReadFile("/proc/" + pid + "/environ")
		name, _ := os.Readlink("/proc/" + pid + "/exe")
		self, _ := os.Executable()
		if n, wrong := strconv.Atoi(pid); err == nil && wrong == nil && name == self && strings.Contains(string(env), "\x00"+containVariable+"="+which+"\x00") {
			_ = syscall.Kill(n, syscall.SIGKILL)
			return
		}
	}
	t.Fatalf("no process of the tests is called %s", which)
}
