// Package peers holds ike against IKE daemons that we did not write, on real
// sockets in network namespaces: a printed matrix that is a test. make test
// plays every kind of row; make ike-matrix plays every combination.
package peers

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfw/ipfw/e2e/lab"
)

func TestMain(m *testing.M) {
	if was, err := lab.Agent(nil); was {
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
	if os.Getenv(responderVariable) != "" {
		fmt.Fprintln(os.Stderr, "responder:", serveResponder())
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// full plays every combination: IPFW_IKE_MATRIX=1.
func full() bool { return os.Getenv("IPFW_IKE_MATRIX") != "" }

// matrix collects what became of the rows, for printing.
type matrix struct {
	mu    sync.Mutex
	lines []string
}

func (m *matrix) add(t *testing.T, s *site, r row, took time.Duration) {
	verdict := "ok"
	switch {
	case t.Failed():
		verdict = "FAILED"
	case t.Skipped():
		verdict = "skipped"
	case r.failure != 0:
		verdict = "ok: " + r.failure.String()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lines = append(m.lines, fmt.Sprintf("%-16s %-5s calls  %-70s %s (%d ms)", s.name, r.call, r.name, verdict, took.Milliseconds()))
}

// play runs rows on a site, one after the other; sites run side by side.
func (m *matrix) play(t *testing.T, name string, make func(*testing.T) *site, rows []row) {
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		s := make(t)
		for _, r := range rows {
			t.Run(strings.ReplaceAll(r.name+", "+r.call+" calls", "/", "-"), func(t *testing.T) {
				start := time.Now()
				defer func() { m.add(t, s, r, time.Since(start)) }()
				r.run(t, s)
			})
		}
	})
}

// print shows the matrix at the end.
func (m *matrix) print(t *testing.T) {
	t.Logf("%d rows\n%s", len(m.lines), strings.Join(m.lines, "\n"))
}

// TestStrongSwan is the matrix with strongSwan's charon and its ESP in user
// space.
func TestStrongSwan(t *testing.T) {
	t.Parallel()
	m := new(matrix)
	t.Run("rows", func(t *testing.T) {
		m.play(t, "direct", func(t *testing.T) *site { return directSite(t, "") }, append(suiteRows(), directRows()...))
		m.play(t, "nat", func(t *testing.T) *site { return natSite(t, true, "") }, natRows("us"))
		m.play(t, "peer-nat", func(t *testing.T) *site { return natSite(t, false, "") }, natRows("peer"))
		m.play(t, "failures", func(t *testing.T) *site { return directSite(t, "") }, failureRows())
		m.play(t, "roam", func(t *testing.T) *site {
			s := directSite(t, "")
			s.more = []netip.Addr{netip.MustParseAddr("10.77.0.4")}
			s.host.Run("ip", "addr", "add", "10.77.0.4/24", "dev", "c0")
			return s
		}, roamRows())
		m.play(t, "old", func(t *testing.T) *site { return directSite(t, "  signature_authentication = no\n") }, oldRows())
	})
	m.print(t)
}

// TestStrongSwanKernel is the matrix with strongSwan in a guest, with the
// kernel's ESP: transport mode and ESP without UDP are here.
func TestStrongSwanKernel(t *testing.T) {
	t.Parallel()
	m := new(matrix)
	t.Run("rows", func(t *testing.T) {
		m.play(t, "kernel", func(t *testing.T) *site { return kernelSite(t, "") }, kernelRows())
	})
	m.print(t)
}
