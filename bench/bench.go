package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/ipfw/ipfw/bench/internal/report"
	"github.com/ipfw/ipfw/e2e/lab"
)

// The two policies that are measured, in rules.
const (
	fewRules  = 10
	manyRules = 10000
)

// bench is one run.
type bench struct {
	options
	*report.Report
	log io.Writer

	self           string   // this program, for roles
	queueLoop, udp string   // the C programs
	lost           []string // contestants that failed
}

// run measures what the options say, and prints the table to out.
func run(ctx context.Context, o options, out, log io.Writer) error {
	if os.Geteuid() != 0 {
		return errors.New("needs root to make network namespaces")
	}
	sweep()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b := &bench{options: o, log: log, self: self, Report: &report.Report{
		Started: time.Now(), CPUs: runtime.NumCPU(), Go: runtime.Version(),
		Kernel: output("uname", "-r"), Revision: output("git", "describe", "--always", "--dirty"),
		Command: os.Args[1:], Contestants: map[string]string{}, Ways: map[string]string{},
		Congestion: congestion(o.congestion, sysctl("tcp_available_congestion_control"), sysctl("tcp_congestion_control")),
	}}
	if err := attempt(func(h *harness) {
		b.compile(h)
		defer lab.RemoveBinary()
		lab.Binary(h)
		h.check(b.turnsOf(ctx), "measuring")
	}); err != nil {
		return err
	}
	b.Seconds = time.Since(b.Started).Seconds()
	b.print(out)
	if err := b.save(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// output is what a command prints, "" if it fails.
func output(args ...string) string {
	out, _ := exec.Command(args[0], args[1:]...).Output()
	return strings.TrimSpace(string(out))
}

// compile builds the C programs.
func (b *bench) compile(h *harness) {
	dir := h.TempDir()
	root := filepath.Dir(output("go", "env", "GOMOD"))
	for name, path := range map[string]*string{"queueloop": &b.queueLoop, "udp": &b.udp} {
		*path = filepath.Join(dir, name)
		out, err := exec.Command("gcc", "-O2", "-Wall", "-o", *path, filepath.Join(root, "bench", "c", name+".c")).CombinedOutput()
		if err != nil {
			h.Fatalf("gcc: %v\n%s", err, out)
		}
	}
}

// turnsOf is all that is done in turn.
func (b *bench) turnsOf(ctx context.Context) error {
	b.inTurn(ctx, b.ruleCounts(), b.todo)
	if slices.Contains(b.workloads, latency) {
		b.latencies(ctx)
	}
	if slices.Contains(b.workloads, lookup) {
		return b.lookups(ctx)
	}
	return nil
}

// ruleCounts are the sizes of policies that somebody is measured with.
func (b *bench) ruleCounts() []int {
	if b.rules != nil {
		return b.rules
	}
	return []int{fewRules, manyRules}
}

// todo says what a contestant is measured by. With more than the few rules,
// there is nothing to learn from who has none, but for a base to compare with.
func (b *bench) todo(c *contestant, rules int) []workload {
	if rules != b.ruleCounts()[0] && !c.policy && c.name != none {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(workloads), func(w workload) bool {
		// The rate at which latency is measured comes from requestRate.
		wanted := slices.Contains(b.workloads, w.name) || w.name == requestRate && slices.Contains(b.workloads, latency)
		return !wanted || b.rules == nil && !slices.Contains(w.rules, rules) || w.who != nil && !w.who(c)
	})
}

// print writes the table.
func (b *bench) print(out io.Writer) {
	fmt.Fprintf(out, "ipfw %s, Linux %s, %d processors, %s; %d turns of %v each. Streams are %s's. Both ends run on this machine: ratios count.\n",
		b.Revision, b.Kernel, b.CPUs, b.Go, b.turns, b.length, b.Congestion)
	for _, name := range slices.Sorted(maps.Keys(b.Ways)) {
		fmt.Fprintf(out, "  %s on %s\n", name, b.Ways[name])
	}
	for _, s := range sections(b.Report, b.ruleCounts()) {
		b.Write(out, s)
	}
	writeLookups(b.Report, out)
	writeBefore(b.Report, out)
	b.Bars = bars(b.Report)
	b.WriteBars(out)
	for _, n := range b.Notes {
		fmt.Fprintf(out, "\n%s\n", n)
	}
	fmt.Fprintln(out)
	for i := range contestants {
		if what, ok := b.Contestants[contestants[i].name]; ok {
			fmt.Fprintf(out, "  %-14s %s\n", contestants[i].name, what)
		}
	}
}

// save writes the JSON twice: by the time of the run, and as the last one.
func (b *bench) save() error {
	text, err := json.MarshalIndent(b.Report, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(b.out, 0o755); err != nil {
		return err
	}
	path := filepath.Join(b.out, b.Started.Format("2006-01-02T150405")+".json")
	if err := errors.Join(os.WriteFile(path, text, 0o644), os.WriteFile(filepath.Join(b.out, "last.json"), text, 0o644)); err != nil {
		return err
	}
	fmt.Fprintf(b.log, "written: %s\n", path)
	return nil
}
