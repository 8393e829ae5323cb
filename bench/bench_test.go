package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/bench/internal/report"
	"github.com/ipfw/ipfw/e2e/lab"
	"github.com/ipfw/ipfw/rules"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m)) }

// TestPolicies wants the same number of rules in both languages, and both to
// be accepted.
func TestPolicies(t *testing.T) {
	for _, n := range []int{opening, fewRules, manyRules} {
		path := filepath.Join(t.TempDir(), "policy.hcl")
		if err := os.WriteFile(path, []byte(ipfwPolicy(n, "none")), 0o600); err != nil {
			t.Fatal(err)
		}
		p, diags := rules.Load([]string{path}, rules.LoadOptions{})
		if p == nil {
			t.Fatalf("%d rules: %v", n, diags)
		}
		own := 0
		for _, r := range p.Engine.Rules {
			if !strings.HasPrefix(r.Name, "essential-") {
				own++
			}
		}
		if own != n || len(p.Warnings) > 0 {
			t.Errorf("asked for %d rules, got %d, with warnings %v", n, own, p.Warnings)
		}
		if got := strings.Count(nftPolicy(n), "dport"); got != n {
			t.Errorf("asked for %d rules of nftables, got %d", n, got)
		}
	}
}

// TestNftables has the kernel take what the benchmark loads.
func TestNftables(t *testing.T) {
	l := lab.New(t)
	lab.Need(t, "nft")
	l.Host("alone").Run("nft", "-f", l.File("rules.nft", nftPolicy(fewRules)))
}

// TestPrograms compiles the C programs, which explain themselves.
func TestPrograms(t *testing.T) {
	lab.Need(t, "gcc")
	b := new(bench)
	h := new(harness)
	defer h.close()
	b.compile(h)
	if err := exec.Command(b.udp).Run(); err == nil {
		t.Error("udp without arguments is content")
	}
	if err := exec.Command(b.queueLoop).Run(); err == nil {
		t.Error("queueloop without arguments is content")
	}
}

// TestContestants has those that are no daemon of others carry something, in a
// laboratory as the measurements have it, and looks at the wire whether those
// that protect do. It is ipfw and the harness that are tested: what another
// contestant loses on a busy machine is told, and no failure.
func TestContestants(t *testing.T) {
	l := lab.New(t)
	lab.Need(t, "gcc", "nginx", "iperf3", "tcpdump")
	b := &bench{self: filepath.Join(l.Dir, "bench"), Report: new(report.Report)}
	b.length = 100 * time.Millisecond
	if out, err := exec.Command("go", "build", "-o", b.self, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	h := new(harness)
	t.Cleanup(h.close)
	b.compile(h)
	for _, name := range []string{none, nft, cLoop, cBatch, goCallback, strongswan, ipfwNative, ipfwUDP, ipfwChaCha} {
		t.Run(name, func(t *testing.T) {
			c := find(name)
			err := attempt(func(h *harness) { carry(t, &site{harness: h, b: b, rules: fewRules}, c) })
			switch {
			case errors.Is(err, errMissing):
				lab.Skip(t, err.Error())
			case errors.Is(err, errUnanswered) && !strings.HasPrefix(name, "ipfw"):
				t.Log(err)
			case err != nil:
				t.Error(err)
			}
		})
	}
}

func carry(t *testing.T, s *site, c *contestant) {
	s.start(c)
	for _, run := range []func(*site) []figure{runUDP, runConnect} {
		for _, f := range run(s) {
			t.Logf("%s %s %s", f.workload, report.Figure(f.value), f.unit.Name)
		}
	}
	tap := s.client.Capture("c0", "ip")
	s.ask("connect", s.web(), "1", "1")
	const sealed = "esp or udp port 4500 or udp port 500"
	if all, hidden := tap.Count("ip"), tap.Count(sealed); all == 0 || c.protects && hidden != all || !c.protects && hidden > 0 {
		t.Errorf("of %d packets on the wire %d are sealed", all, hidden)
	}
}

func TestOptions(t *testing.T) {
	o, err := parse([]string{"-only", "udp64,tcp1", "-contestants", "ipfw-none,none", "-turns", "2", "-seconds", "0.5", "-rules", "10,100"})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(o.workloads, []string{tcpOne, udpSmall}) || !slices.Equal(o.contestants, []string{none, ipfwNone}) ||
		o.turns != 2 || o.length != 500*time.Millisecond || !slices.Equal(o.rules, []int{10, 100}) {
		t.Errorf("%+v", o)
	}
	if q, err := parse([]string{"-quick", "-turns", "4"}); err != nil || q.turns != 4 || q.length > time.Second ||
		slices.Contains(q.workloads, tcpMany) || !slices.Contains(q.workloads, lookup) || slices.Contains(q.contestants, ipfwChaCha) {
		t.Errorf("quick: %+v %v", q, err)
	}
	program := lab.Binary(t)
	b, err := parse([]string{"-before", program, "-contestants", "none,ipfw-esp"})
	if err != nil || b.before != program || !slices.Equal(b.contestants, []string{none, ipfwNative, ipfwNative + beforeSuffix}) {
		t.Errorf("before: %+v %v", b, err)
	}
	for _, bad := range [][]string{{"-before", "/dev/null"}, {"-only", "tcp"}, {"-contestants", "pf"}, {"-turns", "0"}, {"-seconds", "0"}, {"-rules", "1"}, {"tcp1"}} {
		if o, err := parse(bad); err == nil {
			t.Errorf("%q is taken: %+v", bad, o)
		}
	}
}

// TestTodo looks at who is measured by what.
func TestTodo(t *testing.T) {
	b := new(bench)
	var err error
	if b.options, err = parse(nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		who   string
		rules int
		want  string
	}{
		{none, fewRules, "tcp1 tcp8 udp64 conn request"},
		{none, manyRules, "conn"},
		{ipfwNone, manyRules, "conn memory"},
		{nft, manyRules, "conn"},
		{cLoop, fewRules, "tcp1 tcp8 udp64 conn request"},
		{cLoop, manyRules, ""},
		{wireguard, fewRules, "tcp1 tcp8 udp64 conn request"},
		{wireguard, manyRules, ""},
	} {
		var got []string
		for _, w := range b.todo(find(c.who), c.rules) {
			got = append(got, w.name)
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s with %d rules: %q, want %q", c.who, c.rules, s, c.want)
		}
	}
}

// TestAttempt wants everything removed, last made first, and the reason told.
func TestAttempt(t *testing.T) {
	var order []int
	var dir string
	err := attempt(func(h *harness) {
		h.Cleanup(func() { order = append(order, 1) })
		dir = h.TempDir()
		h.Cleanup(func() { order = append(order, 2) })
		h.Fatalf("no %s", "luck")
	})
	if err == nil || err.Error() != "no luck" || !slices.Equal(order, []int{2, 1}) {
		t.Errorf("%v, cleaned up %v", err, order)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s: %v", dir, err)
	}
	if err := attempt(func(*harness) {}); err != nil {
		t.Error(err)
	}
}

func TestCongestion(t *testing.T) {
	for _, row := range []struct{ want, available, own, get string }{
		{"cubic", "reno bbr cubic", "bbr", "cubic"},
		{"cubic", "reno bbr", "bbr", "bbr"},
		{"", "reno cubic", "cubic", "cubic"},
		{"", "", "", ""},
	} {
		if got := congestion(row.want, row.available, row.own); got != row.get {
			t.Errorf("%q of %q, own %q: %q, want %q", row.want, row.available, row.own, got, row.get)
		}
	}
}
