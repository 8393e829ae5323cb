//go:build guest

package e2e

import (
	"os/exec"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// TestDemoUnderLoad runs the demo ten times beside six busy loops, as on a slow
// machine that has much to do: whatever its processes wait for comes late, and in
// another order than on a quiet one.
func TestDemoUnderLoad(t *testing.T) {
	l := lab.New(t)
	for range 6 {
		loop := exec.Command("sh", "-c", "while :; do :; done")
		if err := loop.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = loop.Process.Kill()
			_ = loop.Wait()
		})
	}
	h := l.Host("machine")
	for i := range 10 {
		if out, err := h.Try(5*lab.Patience, "env", "TMPDIR="+l.Dir, lab.Binary(t), "demo"); err != nil {
			t.Errorf("run %d: %v\n%s", i+1, err, out)
		}
	}
}
