package vm

import (
	"context"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// has looks for a feature in the running kernel.
func (m *Machine) has(f Feature) bool {
	if f.Module != "" {
		if _, err := m.Try(lab.Patience, "modprobe", f.Module); err != nil {
			return false
		}
	}
	if f.Symbol == "" {
		return true
	}
	_, err := m.Try(lab.Patience, "grep", "-qw", f.Symbol, "/proc/kallsyms")
	return err == nil
}

// TestEnds: what becomes of a guest is told in a sentence, with the last lines of
// its console, and nothing of it is left.
func TestEnds(t *testing.T) {
	for _, end := range []struct {
		name, command, want string
		memory              int
		limit               time.Duration
	}{
		{"panic", "echo c >/proc/sysrq-trigger", "its kernel panicked: sysrq triggered crash", 0, lab.Patience},
		{"memory", "tail /dev/zero", "its memory of 256 MB is exhausted", 256, lab.Patience},
		{"power", "echo o >/proc/sysrq-trigger; sleep 60", "it ended: its kernel said no word of it; qemu: exit status 0", 0, lab.Patience},
		{"time", "sleep 600", "took longer than 1s", 0, time.Second},
	} {
		if end.name != "panic" && chosen(t).rows == "" {
			continue // each boots a guest: make kernels
		}
		t.Run(end.name, func(t *testing.T) {
			before := emulators(t)
			t.Run("guest", func(t *testing.T) {
				m := Boot(t, Kernels()[1], t.TempDir(), Config{Memory: end.memory})
				out, err := m.Try(end.limit, "sh", "-c", end.command)
				if err == nil || !strings.Contains(err.Error(), end.want) {
					t.Errorf("%q: told as %v\n%s, want %q", end.command, err, out, end.want)
				} else if end.name != "time" && !strings.Contains(err.Error(), "console:\n[") {
					t.Errorf("without the console: %v", err)
				}
			})
			if after := emulators(t); after != before {
				t.Errorf("qemu before: %s; after: %s", before, after)
			}
		})
	}
}

// emulators are the processes of qemu that there are.
func emulators(t *testing.T) string {
	ctx, cancel := context.WithTimeout(context.Background(), lab.Patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, "sh", "-c", "cat /proc/[0-9]*/comm | grep -c ^qemu-system || true").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// TestReading reads the output of a test binary in parts as they may come.
func TestReading(t *testing.T) {
	const output = `=== RUN   TestA
=== PAUSE TestA
=== RUN   TestB
    b_test.go:7: SKIPPED: this kernel has not a thing (CONFIG_THING)
--- SKIP: TestB (0.01s)
=== CONT  TestA
=== RUN   TestA/sub
    a_test.go:9: wrong
--- FAIL: TestA (1.50s)
    --- FAIL: TestA/sub (0.20s)
=== RUN   TestC
--- PASS: TestC (0.00s)
=== RUN   TestD
    d_test.go:1: begun
panic: gone
`
	for _, size := range []int{1, 7, len(output)} {
		var got []string
		r := newReading(func(e result) { got = append(got, e.how+" "+e.test+" "+e.took+" "+e.why()) })
		for part := range slices.Chunk([]byte(output), size) {
			r.take(string(part))
		}
		for _, e := range r.open() {
			got = append(got, "open "+e.test+" "+e.why())
		}
		want := []string{"SKIP TestB 0.01s this kernel has not a thing (CONFIG_THING)", "FAIL TestA 1.50s wrong", "PASS TestC 0.00s ", "open TestD panic: gone"}
		if !slices.Equal(got, want) {
			t.Errorf("in parts of %d bytes:\n%q, want\n%q", size, got, want)
		}
	}
}
