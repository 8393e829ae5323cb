package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/bench/internal/report"
	"github.com/ipfw/ipfw/e2e/lab"
)

func newReport() *bench {
	return &bench{Report: new(report.Report), log: io.Discard, options: options{turns: 1}}
}

func (b *bench) put(workload, who string, rules int, values ...float64) {
	for turn, v := range values {
		b.Add(report.Key{Workload: workload, Contestant: who, Rules: rules}, report.Unit{}, turn, v)
	}
}

// TestLookupLines reads what go test prints, with one processor and with more.
func TestLookupLines(t *testing.T) {
	b := newReport()
	b.addLookups(`goos: linux
BenchmarkFirst/acl4/1000         	 1654633	        65.00 ns/op	       117.3 B/rule	        15.39 M/s	       0 B/op
BenchmarkFirst/acl4/10000-2      	 1000000	       195.0 ns/op	       148.3 B/rule	         5.052 M/s	       0 B/op
BenchmarkClassBench/fw1_1k-2     	 1656676	       200.0 ns/op	         6.415 M/s	       0 B/op	       0 allocs/op
BenchmarkClassBench/fw1_1k/linear-2  	  125715	      1890 ns/op	         0.5290 M/s
PASS
`, 0)
	if len(b.Measures) != 3 {
		t.Errorf("%d measures, want 3", len(b.Measures))
	}
	if g := growth(b.Report, "acl4", 1); math.Abs(g-3) > 1e-9 {
		t.Errorf("10,000 rules take %v times as long as 1,000, want 3", g)
	}
	for _, bar := range lookupBars(b.Report) {
		want := "not measured"
		switch {
		case strings.Contains(bar.Text, "fw1_1k"):
			want = "MISSED" // 5 million/s
		case strings.Contains(bar.Text, "10000 rules / 1000,"):
			want = "MISSED"
		}
		if bar.Verdict() != want && !(strings.Contains(bar.Text, "fw1_1k") && bar.Got == 5) {
			t.Errorf("%s: %v is %s, want %s", bar.Text, bar.Got, bar.Verdict(), want)
		}
	}
	var out strings.Builder
	writeLookups(b.Report, &out)
	if !strings.Contains(out.String(), "acl4  0.065  0.195   3.00") {
		t.Errorf("table:\n%s", out.String())
	}
}

// TestRates wants half of the slowest of each group, and what nobody but no
// firewall was measured by left out.
func TestRates(t *testing.T) {
	b := newReport()
	b.put(requestRate, none, fewRules, 80000)
	b.put(requestRate, goCallback, fewRules, 19000, 21000, 20000)
	if got := rates(b.Report, fewRules); len(got) != 1 || got[""] != 10000 {
		t.Errorf("%v, want 10000 in the clear", got)
	}
	b.put(requestRate, ipfwNative, fewRules, 30000)
	b.put(requestRate, wireguard, fewRules, 9000)
	if got := rates(b.Report, fewRules); got[""] != 10000 || got["-protected"] != 4500 {
		t.Errorf("%v, want 10000 and 4500", got)
	}
}

// TestAdded subtracts what no firewall took in the same turn.
func TestAdded(t *testing.T) {
	b := newReport()
	b.put("p50-protected", none, fewRules, 1, 2, 1)
	b.put("p50-protected", wireguard, fewRules, 3, 4, 3)
	b.put("p50-protected", ipfwUDP, fewRules, 2, 3, 2)
	b.added(fewRules)
	for _, bar := range bars(b.Report) {
		if strings.HasPrefix(bar.Text, "added") {
			if bar.Got != 0.5 || bar.Verdict() != "met" {
				t.Errorf("%+v", bar)
			}
			return
		}
	}
	t.Error("no bar for latency")
}

// TestBarsTakeTheHarderRival looks at bars with two measures behind them.
func TestBarsTakeTheHarderRival(t *testing.T) {
	b := newReport()
	b.put(tcpOne, ipfwNone, fewRules, 10)
	b.put(tcpOne, cLoop, fewRules, 10)
	b.put(tcpOne, cBatch, fewRules, 20)
	b.put(memory, ipfwFlow, manyRules, 100)
	b.put(memory, ipfwNone, manyRules, 160)
	b.put(udpSmall, ipfwNone, fewRules, 9)
	b.put(udpSmall, cBatch, fewRules, 10)
	want := map[string]float64{
		"one TCP stream, offload = none / bare C loop (the better one)": 0.5, "64-byte UDP, offload = none / bare C loop (the better one)": 0.9,
		"memory, 10000 rules and 100000 flows": 160,
	}
	for _, bar := range bars(b.Report) {
		if w, ok := want[bar.Text]; ok {
			if delete(want, bar.Text); bar.Got != w {
				t.Errorf("%s: %v, want %v", bar.Text, bar.Got, w)
			}
		} else if !math.IsNaN(bar.Got) {
			t.Errorf("%s: %v out of nothing", bar.Text, bar.Got)
		}
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
}

// TestEveryBarHasASection wants no two bars alike, and each contestant in a
// group.
func TestEveryBarHasASection(t *testing.T) {
	seen := map[string]bool{}
	for _, bar := range bars(new(report.Report)) {
		if seen[bar.Text] || bar.Text == "" || bar.Want == 0 {
			t.Errorf("bar %+v", bar)
		}
		seen[bar.Text] = true
	}
	for _, c := range contestants {
		if c.what == "" || c.up == nil {
			t.Errorf("contestant %q is not whole", c.name)
		}
	}
}

// TestMemoryIsReadable reads the memory of this very process.
func TestMemoryIsReadable(t *testing.T) {
	l := lab.New(t)
	d := l.Host("alone").Start("sleep", "10")
	if mb, err := residentMB(d.Cmd.Process.Pid); err != nil || mb <= 0 || mb > 1000 {
		t.Errorf("%v MB, %v", mb, err)
	}
	if _, err := residentMB(1 << 30); err == nil {
		t.Error("a process that is not there has memory")
	}
	if s, err := busySeconds(); err != nil || s <= 0 {
		t.Errorf("%v s, %v", s, err)
	}
}

// TestLeftBehind takes what carries the number of a process that is gone, and
// nothing else.
func TestLeftBehind(t *testing.T) {
	dir := t.TempDir()
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	dead := filepath.Join(dir, fmt.Sprintf(tempName, gone.Process.Pid)+"x")
	for _, path := range []string{dead, filepath.Join(dir, fmt.Sprintf(tempName, os.Getpid())+"x"), filepath.Join(dir, "ipfw-bench-x")} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := leftBehind(dir+"/*", tempName); !slices.Equal(got, []string{dead}) {
		t.Errorf("%q, want %q", got, dead)
	}
}

// TestBefore sets two builds side by side, and calls better what is better.
func TestBefore(t *testing.T) {
	r := new(report.Report)
	add := func(workload string, u report.Unit, who string, values ...float64) {
		for turn, v := range values {
			r.Add(report.Key{Workload: workload, Contestant: who, Rules: fewRules}, u, turn, v)
		}
	}
	add(tcpOne, gbits, none, 50, 50)
	add(tcpOne, gbits, ipfwUDP, 6, 8)
	add(tcpOne, gbits, ipfwUDP+beforeSuffix, 4, 5)
	add(cpuPerGB, cpuSecond, ipfwUDP, 2, 2)
	add(cpuPerGB, cpuSecond, ipfwUDP+beforeSuffix, 1, 1)
	var out strings.Builder
	writeBefore(r, &out)
	for _, want := range []string{"tcp1, ipfw-esp-udp", "1.55", "cpu, ipfw-esp-udp", "0.500"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), none) {
		t.Errorf("a contestant without a build before:\n%s", out.String())
	}
}
