package report

import (
	"fmt"
	"io"
	"math"
	"strings"
)

// Section is a part of the table: the contestants under one workload.
type Section struct {
	Title       string
	Workload    string
	Rules       int
	Contestants []string // in this order; those without a measure are left out
	// Against are the contestants that ratios are taken to.
	Against []string
}

// Write prints a section: median, spread and ratios. It prints nothing if
// nothing was measured.
func (r *Report) Write(w io.Writer, s Section) {
	var rows [][]string
	find := func(c string) *Measure { return r.Find(Key{s.Workload, c, s.Rules}) }
	var against []string
	for _, a := range s.Against {
		if find(a) != nil {
			against = append(against, a)
		}
	}
	unit := ""
	for _, c := range s.Contestants {
		m := find(c)
		if m == nil {
			continue
		}
		unit = m.Unit
		row := []string{c, Figure(m.Median), Spread(m)}
		for _, a := range against {
			row = append(row, Figure(m.Ratio(find(a))))
		}
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		return
	}
	head := []string{"", unit, "spread"}
	for _, a := range against {
		head = append(head, "/ "+a)
	}
	fmt.Fprintf(w, "\n%s\n", s.Title)
	Columns(w, append([][]string{head}, rows...))
}

// Spread is Measure.Spread in words, "±4%"; empty where there is none.
func Spread(m *Measure) string {
	if len(m.Samples) < 2 || math.IsNaN(m.Spread()) {
		return ""
	}
	return fmt.Sprintf("±%.0f%%", 100*m.Spread())
}

// WriteBars prints the bars, each with what was measured.
func (r *Report) WriteBars(w io.Writer) {
	rows := [][]string{{"", "bar", "measured", ""}}
	for i := range r.Bars {
		b := &r.Bars[i]
		rows = append(rows, []string{b.Text, b.Wanted(), Figure(b.Got), b.Verdict()})
	}
	fmt.Fprintf(w, "\nThe bars\n")
	Columns(w, rows)
}

// Columns prints rows with their cells one under the other: the first column
// from the left edge, the others to the right edge.
func Columns(w io.Writer, rows [][]string) {
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	for _, row := range rows {
		var b strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-len([]rune(cell)))
			if i == 0 {
				b.WriteString("  " + cell + pad)
			} else {
				b.WriteString("  " + pad + cell)
			}
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
}

// Figure writes a number with three digits that matter, "-" for none.
func Figure(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return "-"
	case a == 0:
		return "0"
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}
