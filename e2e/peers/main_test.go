// Package peers holds ike against IKE daemons that we did not write, on real
// sockets in network namespaces: a printed matrix that is a test. make test-peers
// plays every kind of row; make ike-matrix plays every combination.
package peers

import (
	"fmt"
	"os"
	"regexp"
	"slices"
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
	os.Exit(lab.Main(m))
}

// full plays every combination: IPFW_IKE_MATRIX=all, or a pattern for the rows
// to play, as the table prints them; IPFW_IKE_PART=2/5 plays the second fifth
// of those.
func full() bool { return os.Getenv("IPFW_IKE_MATRIX") != "" }

// chosen says whether the row is one to play; n numbers the rows of a site.
func chosen(t *testing.T, n int, line string) bool {
	if pattern := os.Getenv("IPFW_IKE_MATRIX"); pattern != "" && pattern != "all" {
		ok, err := regexp.MatchString(pattern, line)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return false
		}
	}
	if part := os.Getenv("IPFW_IKE_PART"); part != "" {
		var k, of int
		if _, err := fmt.Sscanf(part, "%d/%d", &k, &of); err != nil || k < 1 || k > of {
			t.Fatalf("IPFW_IKE_PART=%s: want 1/5 to 5/5, for example", part)
		}
		return n%of == k-1
	}
	return true
}

// matrix collects what became of the rows, for printing.
type matrix struct {
	mu    sync.Mutex
	lines []string
}

func (m *matrix) add(t *testing.T, site string, r row, took time.Duration) {
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
	m.lines = append(m.lines, fmt.Sprintf("%s %s (%d ms)", line(site, r.call, r.name), verdict, took.Milliseconds()))
}

// line is the table's name for a row.
func line(site, call, name string) string {
	return fmt.Sprintf("%-16s %-5s calls  %-70s", site, call, name)
}

// lacks notes a row that cannot be played with this peer.
func (m *matrix) lacks(site, call, name, why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lines = append(m.lines, line(site, call, name)+" peer has not: "+why)
}

// play runs rows on a site, one after the other; sites run side by side.
func (m *matrix) play(t *testing.T, name string, make func(*testing.T) *site, rows []row) {
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		n := -1
		rows := slices.DeleteFunc(slices.Clone(rows), func(r row) bool { n++; return !chosen(t, n, line(name, r.call, r.name)) })
		if len(rows) == 0 {
			return
		}
		s := make(t)
		for _, r := range rows {
			t.Run(strings.ReplaceAll(r.name+", "+r.call+" calls", "/", "-"), func(t *testing.T) {
				start := time.Now()
				defer func() { m.add(t, name, r, time.Since(start)) }()
				r.run(t, s)
			})
		}
	})
}

// print shows the matrix at the end.
func (m *matrix) print(t *testing.T) {
	failed := 0
	for _, l := range m.lines {
		if contains(l, " FAILED (") {
			failed++
		}
	}
	t.Logf("%d rows, %d failed\n%s", len(m.lines), failed, strings.Join(m.lines, "\n"))
}

// TestStrongSwan is the matrix with strongSwan's charon and its ESP in user
// space.
func TestStrongSwan(t *testing.T) {
	t.Parallel()
	m := new(matrix)
	t.Run("rows", func(t *testing.T) {
		m.play(t, "direct", func(t *testing.T) *site { return directSite(t, "") }, append(suiteRows(), directRows()...))
		m.play(t, "behind NAT", func(t *testing.T) *site { return natSite(t, true, false) }, natRows("us"))
		m.play(t, "peer behind NAT", func(t *testing.T) *site { return natSite(t, false, false) }, natRows("peer"))
		m.play(t, "failures", func(t *testing.T) *site { return directSite(t, "") }, failureRows())
		m.play(t, "roam", func(t *testing.T) *site {
			return roams(directSite(t, ""))
		}, roamRows())
		m.play(t, "eap", func(t *testing.T) *site { return directSite(t, "") }, eapRows("TLS 1.2"))
		m.play(t, "eap, TLS 1.3", func(t *testing.T) *site {
			return directSiteOf(t, (*lab.Host).CharonKEM, "  tls {\n    version_min = 1.3\n    version_max = 1.3\n  }\n")
		}, eapRows("TLS 1.3"))
		m.play(t, "any port", func(t *testing.T) *site { return directSite(t, "  port = 0\n  port_nat_t = 0\n") }, anyPortRows())
		m.play(t, "anew", func(t *testing.T) *site { return directSite(t, "") }, anewRows("break before make"))
		m.play(t, "anew, make first", func(t *testing.T) *site { return directSite(t, "  make_before_break = yes\n") }, anewRows("make before break"))
		m.play(t, "bad line", badLineSite, chainRows())
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
		m.play(t, "kernel ESP", func(t *testing.T) *site { return kernelSite(t, "") }, kernelRows())
		m.play(t, "ML-KEM, kernel ESP", func(t *testing.T) *site { return kernelSiteOf(t, (*lab.Guest).CharonKEM, "") }, kemKernelRows())
		m.play(t, "roam, kernel ESP", func(t *testing.T) *site { return roams(kernelSite(t, "")) }, roamKernelRows())
		m.play(t, "behind NAT, kernel ESP", func(t *testing.T) *site { return natSite(t, true, true) }, natKernelRows("us"))
		m.play(t, "peer behind NAT, kernel ESP", func(t *testing.T) *site { return natSite(t, false, true) }, natKernelRows("peer"))
	})
	m.print(t)
}
