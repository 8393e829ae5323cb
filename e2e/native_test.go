package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

// The nftables queue expression, which this machine's kernel may lack, in a
// guest that has it: nfq's own test runs there.
func TestNativeQueue(t *testing.T) {
	l := lab.New(t)
	bin := filepath.Join(l.Dir, "nfq.test")
	if out, err := exec.Command("go", "test", "-c", "-tags", "guest", "-o", bin, "github.com/ipfw/ipfw/nfq").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	g := l.Guest("guest")
	out, err := g.Try(2*time.Minute, bin, "-test.run", "^TestNativeQueueExpression$", "-test.v", "-test.timeout", "90s")
	if err != nil || !strings.Contains(out, "--- PASS: TestNativeQueueExpression") {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Log(lastLines(out, 4))
}
