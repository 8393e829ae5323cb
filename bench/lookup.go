package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"

	"github.com/ipfw/ipfw/bench/internal/report"
)

// lookup is the classifier by itself, on one thread: the benchmarks of
// engine/classify, with its own mixes and, where CLASSBENCH_DIR says that they
// are, with the filter sets of ClassBench.
const lookup = "lookup"

var lookupSizes = []int{1000, 10000, 100000}

// mixes are the kinds of rule sets, for either IP family.
var mixes = []string{"acl4", "fw4", "ipc4", "acl6", "fw6", "ipc6"}

// classBench are the sets, and the best rate in million lookups a second that
// the authors' own C++ programs of CutSplit, TupleMerge and PartitionSort had
// on a machine like the one that the bars are for.
var classBench = []struct {
	set  string
	best float64
}{{"acl1_1k", 8.1}, {"fw1_1k", 5.5}, {"ipc1_1k", 4.5}}

var (
	microseconds = report.Unit{Name: "µs", Less: true}
	lookupLine   = regexp.MustCompile(`^Benchmark(?:First|ClassBench)/(\w+)(?:/(\d+))?(?:-\d+)?\s.*?([\d.]+) ns/op`)
)

// lookups runs them, turn after turn. The traces of ClassBench are compared
// with the linear search first: a fast wrong answer is none.
func (b *bench) lookups(ctx context.Context) error {
	length := fmt.Sprintf("-benchtime=%v", b.length/10)
	sets := []struct{ run, bench, tags string }{{"^$", `BenchmarkFirst/.*/(1000|10000|100000)$`, ""}}
	if os.Getenv("CLASSBENCH_DIR") != "" {
		sets = append(sets, struct{ run, bench, tags string }{"^TestClassBench$", `BenchmarkClassBench/\w+$`, "classbench"})
	} else {
		b.Notes = append(b.Notes, "CLASSBENCH_DIR is not set: the filter sets of ClassBench were not measured.")
	}
	for turn := range b.turns {
		for _, set := range sets {
			if ctx.Err() != nil {
				return nil
			}
			out, err := exec.CommandContext(ctx, "go", "test", "-tags="+set.tags, "-run", set.run, "-bench", set.bench, "-cpu=1", length,
				"github.com/ipfw/ipfw/engine/classify").CombinedOutput()
			if err != nil {
				return fmt.Errorf("lookups: %w\n%s", err, out)
			}
			b.addLookups(string(out), turn)
		}
	}
	return nil
}

// addLookups reads what go test prints.
func (b *bench) addLookups(out string, turn int) {
	for line := range strings.Lines(out) {
		m := lookupLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		ns, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			continue
		}
		rules, _ := strconv.Atoi(m[2]) // none in the name of a set
		b.Add(report.Key{Workload: lookup, Contestant: m[1], Rules: rules}, microseconds, turn, ns/1e3)
		fmt.Fprintf(b.log, "turn %d/%d  lookup in %s, %d rules: %.3f µs\n", turn+1, b.turns, m[1], rules, ns/1e3)
	}
}

// writeLookups prints them: a row for each mix, a column for each size.
func writeLookups(r *report.Report, w io.Writer) {
	rows := [][]string{{"µs"}}
	for i, n := range lookupSizes {
		rows[0] = append(rows[0], fmt.Sprint(n))
		if i > 0 {
			rows[0] = append(rows[0], "ratio")
		}
	}
	for _, mix := range mixes {
		row := []string{mix}
		for i, n := range lookupSizes {
			m := r.Find(report.Key{Workload: lookup, Contestant: mix, Rules: n})
			if m == nil {
				continue
			}
			row = append(row, report.Figure(m.Median))
			if i > 0 {
				row = append(row, report.Figure(growth(r, mix, i)))
			}
		}
		if len(row) > 1 {
			rows = append(rows, row)
		}
	}
	if len(rows) > 1 {
		out := bufio.NewWriter(w)
		defer out.Flush()
		fmt.Fprintf(out, "\nThe first matching rule of so many, one thread, own mixes (engine/classify/mix)\n")
		report.Columns(out, rows)
	}
}

// growth is the time of a lookup in the size with that index, over the time in
// the size before it.
func growth(r *report.Report, mix string, size int) float64 {
	return r.Find(report.Key{Workload: lookup, Contestant: mix, Rules: lookupSizes[size]}).
		Ratio(r.Find(report.Key{Workload: lookup, Contestant: mix, Rules: lookupSizes[size-1]}))
}

// lookupBars are those of the classifier: the worst of the mixes counts.
func lookupBars(r *report.Report) (bars []report.Bar) {
	for _, c := range classBench {
		got := math.NaN()
		if m := r.Find(report.Key{Workload: lookup, Contestant: c.set}); m != nil {
			got = 1 / m.Median
		}
		bars = append(bars, report.Bar{Text: "lookups in " + c.set, Want: c.best, Got: got, Unit: "million/s"})
	}
	for size := 1; size < len(lookupSizes); size++ {
		worst := math.NaN()
		for _, mix := range mixes {
			if g := growth(r, mix, size); !(g <= worst) && !math.IsNaN(g) {
				worst = g
			}
		}
		bars = append(bars, report.Bar{Text: fmt.Sprintf("lookup, %d rules / %d, worst mix", lookupSizes[size], lookupSizes[size-1]),
			Want: 2, AtMost: true, Got: worst})
	}
	return bars
}
