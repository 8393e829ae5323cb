// Package attack holds ipfw to the promises of SECURITY.md from the attacker's
// side. Each test plays one attack against a real daemon in network namespaces
// of its own, and is judged by what crosses the wire or by what the victim's
// program receives, never by ipfw's own counters alone. Beside each attack
// stands the honest use, which has to work: where nothing works, nothing is
// proved.
//
// TestMain prints a table: promise, attacker, attack, outcome for IPv4 and IPv6,
// and what was seen. With IPFW_E2E_BINARY another ipfw is attacked. All that is
// sent is harmless, and stays in these namespaces.
package attack

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

func TestMain(m *testing.M) {
	if runTool() {
		return
	}
	// The tests wait more than they work, so more of them run at a time than
	// there are processors.
	if err := flag.Set("test.parallel", "6"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	flag.Parse()
	code := lab.Main(m)
	if testing.Verbose() || code != 0 {
		printTable()
	}
	os.Exit(code)
}

// attacker is who attacks, in the words of SECURITY.md.
type attacker string

const (
	onPath    attacker = "on the path"
	offPath   attacker = "off the path"
	peer      attacker = "an authenticated peer"
	user      attacker = "a local user"
	rawUser   attacker = "a local program with CAP_NET_RAW"
	otherRule attacker = "another program's rules"
	slip      attacker = "an administrator's slip"
	nobody    attacker = "nobody: an unlucky network"
)

// attempt is one line of the table.
type attempt struct {
	promise string
	who     attacker
	what    string

	mu      sync.Mutex
	outcome map[string]string // by family, or "" for both
	seen    []string
}

var attempts struct {
	sync.Mutex
	list []*attempt
}

// attack begins the line of a test: a promise of SECURITY.md, who attacks, and
// what is tried. The test runs beside others from here on.
func attack(t *testing.T, promise string, who attacker, what string) *attempt {
	t.Helper()
	t.Parallel()
	a := &attempt{promise: promise, who: who, what: what, outcome: map[string]string{}}
	attempts.Lock()
	attempts.list = append(attempts.list, a)
	attempts.Unlock()
	return a
}

// saw adds what was seen to the line; key is the family or the way.
func (a *attempt) saw(key, format string, args ...any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen = append(a.seen, strings.TrimSpace(key+": "+fmt.Sprintf(format, args...)))
}

// end notes how a sub-test of a family has ended.
func (a *attempt) end(t *testing.T, family string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	was, now := a.outcome[family], "holds"
	switch {
	case t.Failed():
		now = "BROKEN"
	case t.Skipped():
		now = "skipped"
	}
	if was == "" || now == "BROKEN" {
		a.outcome[family] = now
	}
}

// each plays an attack in both families, each in a lab of its own, side by side
// with others.
func (a *attempt) each(t *testing.T, f func(t *testing.T, v *family)) {
	for _, v := range []*family{&v4, &v6} {
		a.play(t, v.name, v, f)
	}
}

// play plays an attack in one family under a name.
func (a *attempt) play(t *testing.T, name string, v *family, f func(t *testing.T, v *family)) {
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		t.Cleanup(func() { a.end(t, v.name) })
		f(t, v)
	})
}

// number is the N of GN.
func (a *attempt) number() (n int) {
	_, _ = fmt.Sscanf(a.promise, "G%d", &n)
	return n
}

func printTable() {
	list := attempts.list
	if len(list) == 0 {
		return // the tests ran in another process, see lab.Main
	}
	slices.SortStableFunc(list, func(a, b *attempt) int { return cmp.Compare(a.number(), b.number()) })
	rows := [][]string{{"", "attacker", "attack", "IPv4", "IPv6", "what was seen"}}
	for _, a := range list {
		if len(a.outcome) == 0 {
			continue
		}
		slices.Sort(a.seen)
		row := []string{a.promise, string(a.who), a.what, cmp.Or(a.outcome["v4"], a.outcome[""]), cmp.Or(a.outcome["v6"], a.outcome[""]), ""}
		if len(a.seen) == 0 {
			a.seen = []string{""}
		}
		for i, s := range a.seen {
			if i > 0 {
				row = make([]string, len(row))
			}
			row[len(row)-1] = s
			rows = append(rows, row)
		}
	}
	width := make([]int, len(rows[0]))
	for _, r := range rows {
		for i, c := range r {
			width[i] = max(width[i], len(c))
		}
	}
	fmt.Println()
	for _, r := range rows {
		var b strings.Builder
		for i, c := range r {
			fmt.Fprintf(&b, "%-*s  ", width[i], c)
		}
		fmt.Println(strings.TrimRight(b.String(), " "))
	}
}
