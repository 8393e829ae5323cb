package main

import (
	"fmt"
	"io"
	"os/exec"
	"strconv"
	"strings"

	"github.com/ipfw/ipfw/bench/internal/report"
)

// beforeSuffix is at the end of the names of those contestants that are the
// build of -before.
const beforeSuffix = "@before"

// withBefore adds, behind each ipfw, the same by the build of -before: they are
// neighbours in every turn.
func withBefore(all []contestant) (both []contestant) {
	for _, c := range all {
		both = append(both, c)
		if strings.HasPrefix(c.name, "ipfw-") {
			c.name, c.before = c.name+beforeSuffix, true
			c.what += ", by the build of -before"
			both = append(both, c)
		}
	}
	return both
}

// alsoBefore adds the build of -before to each ipfw.
func alsoBefore(names []string) (both []string) {
	for _, n := range names {
		both = append(both, n)
		if strings.HasPrefix(n, "ipfw-") {
			both = append(both, n+beforeSuffix)
		}
	}
	return both
}

// runs refuses what is no ipfw that runs here.
func runs(path string) error {
	if out, err := exec.Command(path, "help").CombinedOutput(); err != nil {
		return fmt.Errorf("-before %s: not a build of ipfw: %w: %s", path, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// writeBefore prints this tree beside the build of -before, a row for each figure
// of each ipfw. A ratio above 1 is better, also where less is better.
func writeBefore(r *report.Report, w io.Writer) {
	rows := [][]string{{"", "rules", "unit", "before", "spread", "now", "spread", "now is better by"}}
	for _, m := range r.Measures {
		before := r.Find(report.Key{Workload: m.Workload, Contestant: m.Contestant + beforeSuffix, Rules: m.Rules})
		if before == nil {
			continue
		}
		ratio := m.Ratio(before)
		if m.Less {
			ratio = before.Ratio(m)
		}
		rows = append(rows, []string{m.Workload + ", " + m.Contestant, strconv.Itoa(m.Rules), m.Unit,
			report.Figure(before.Median), report.Spread(before), report.Figure(m.Median), report.Spread(m), report.Figure(ratio)})
	}
	if len(rows) > 1 {
		fmt.Fprintf(w, "\nBeside the build of -before (ratios of the same turn, their median)\n")
		report.Columns(w, rows)
	}
}
