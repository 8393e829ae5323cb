package attack

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// A policy, or what was taken for one, does not take the machine's memory.
func TestPoliciesThatGrow(t *testing.T) {
	a := attack(t, "G21", slip, "a policy that doubles, or is none")
	doubling := func(first, next string) string {
		var b strings.Builder
		fmt.Fprintf(&b, "policy {\n  inbound  = \"discard\"\n  outbound = \"discard\"\n}\nlocals {\n  a0 = %s\n", first)
		for i := 1; i < 25; i++ {
			fmt.Fprintf(&b, "  a%d = %s\n", i, strings.ReplaceAll(next, "X", fmt.Sprintf("local.a%d", i-1)))
		}
		return b.String() + "}\n"
	}
	loops := "policy {\n  inbound  = \"discard\"\n  outbound = \"discard\"\n}\nlocals {\n  r = range(1000)\n  all = [for a in local.r : [for b in local.r : [for c in local.r : a]]]\n}\n"
	noise := strings.Repeat("\x7fELF\x00\x01\xff\xfe{\n\"=", 1<<18)
	for _, row := range []struct{ name, text string }{
		{"strings", doubling(`"xxxxxxxx"`, `"${X}${X}"`)},
		{"lists", doubling(`["x", "y"]`, `[X, X]`)},
		{"flat lists", doubling(`["x", "y"]`, `concat(X, X)`)},
		{"for in for", loops},
		{"no text", noise},
	} {
		a.once(t, row.name, func(t *testing.T) {
			l := lab.New(t)
			used := func(text string) (kib int, out string, err error) {
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				defer cancel()
				// Memory is bounded, for the machine's sake. What wait4 says of a
				// child's begins with the parent's, so the kernel is asked.
				cmd := exec.CommandContext(ctx, "sh", "-c", `ulimit -v 2000000; exec "$0" validate "$1"`, lab.Binary(t), l.File("policy.hcl", text))
				var words output
				cmd.Stdout, cmd.Stderr = &words, &words
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				done := make(chan struct{})
				go func() { err = cmd.Wait(); close(done) }()
				for {
					select {
					case <-done:
						return kib, words.String(), err
					case <-time.After(2 * time.Millisecond):
						kib = max(kib, highWaterOf(cmd.Process.Pid))
					}
				}
			}
			plain, out, err := used(closed(native))
			if err != nil {
				t.Fatalf("a good policy: %v\n%s", err, out)
			}
			big, out, err := used(row.text)
			if err == nil {
				t.Errorf("it is taken for good: %s", out[:min(len(out), 300)])
			}
			if !strings.Contains(out, "Error: ") {
				t.Errorf("it is refused without a word: %v, %q", err, out[:min(len(out), 300)])
			}
			if big > plain+150<<10 {
				t.Errorf("it takes %d MiB, a good one %d", big>>10, plain>>10)
			}
			if errors := strings.Count(out, "Error: "); errors > 20 || len(out) > 32<<10 {
				t.Errorf("%d errors in %d bytes are told", errors, len(out))
			}
			a.saw(row.name, "refused: %v, with %d MiB (a good policy %d) and %d bytes of words", err != nil, big>>10, plain>>10, len(out))
		})
	}
}

// once plays an attack that has nothing to do with the family.
func (a *attempt) once(t *testing.T, name string, f func(t *testing.T)) {
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		t.Cleanup(func() { a.end(t, "") })
		f(t)
	})
}
