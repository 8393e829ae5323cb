package vm

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// result is what became of one test in a guest.
type result struct {
	test   string
	how    string // PASS, FAIL, SKIP
	took   string
	output string // of a failure, all of it
}

// why is the last thing that a test said, without where.
func (r result) why() string {
	lines := strings.Split(strings.TrimSpace(r.output), "\n")
	return strings.TrimPrefix(place.ReplaceAllString(strings.TrimSpace(lines[len(lines)-1]), ""), "SKIPPED: ")
}

// lacks says that the kernel has not what the test needs.
func (r result) lacks() bool { return r.how == "SKIP" && strings.HasPrefix(r.why(), lacksPrefix) }

var (
	ending = regexp.MustCompile(`^--- (PASS|FAIL|SKIP): (\S+) \((.*)\)$`)
	about  = regexp.MustCompile(`^=== (RUN|CONT|NAME|PAUSE) +([^/\s]+)`)
	place  = regexp.MustCompile(`^\S+\.go:\d+: `)
)

// reading is the output of a test binary, with -test.v, as it comes. Parallel
// tests take turns; it says with each turn whose it is.
type reading struct {
	rest    string
	current string
	output  map[string][]string // of tests that have begun and not ended
	loose   []string            // what no test has said
	ended   func(result)
	each    func(line string) // nil: nobody wants to see them
}

func newReading(ended func(result)) *reading {
	return &reading{output: map[string][]string{}, ended: ended}
}

// take takes the next part.
func (r *reading) take(part string) {
	lines := strings.Split(r.rest+part, "\n")
	r.rest = lines[len(lines)-1]
	for _, l := range lines[:len(lines)-1] {
		if r.each != nil {
			r.each(l)
		}
		r.line(l)
	}
}

func (r *reading) line(l string) {
	if m := about.FindStringSubmatch(l); m != nil {
		r.current = m[2]
		if _, begun := r.output[r.current]; !begun {
			r.output[r.current] = nil
		}
		return
	}
	if m := ending.FindStringSubmatch(l); m != nil {
		r.ended(result{test: m[2], how: m[1], took: m[3], output: strings.Join(r.output[m[2]], "\n")})
		delete(r.output, m[2])
		r.current = ""
		return
	}
	if _, ok := r.output[r.current]; ok {
		r.output[r.current] = append(r.output[r.current], l)
	} else if l != "" && l != "PASS" && l != "FAIL" {
		r.loose = append(r.loose, l)
	}
}

// open are tests that have begun and not ended, with what they have said.
func (r *reading) open() (tests []result) {
	for test, said := range r.output {
		tests = append(tests, result{test: test, how: "FAIL", took: "did not end", output: strings.Join(said, "\n")})
	}
	return tests
}

// matrix collects what became of the tests, for printing.
type matrix struct {
	kernels []string          // columns, in order
	rows    []string          // in order
	cells   map[string]string // by row and kernel
	notes   []string
}

func (m *matrix) add(kernel, row, verdict string) {
	if m.cells == nil {
		m.cells = map[string]string{}
	}
	if !slices.Contains(m.kernels, kernel) {
		m.kernels = append(m.kernels, kernel)
	}
	if !slices.Contains(m.rows, row) {
		m.rows = append(m.rows, row)
	}
	m.cells[row+kernel] = verdict
}

// note gives the number of a sentence below the table.
func (m *matrix) note(sentence string) int {
	i := slices.Index(m.notes, sentence)
	if i < 0 {
		i = len(m.notes)
		m.notes = append(m.notes, sentence)
	}
	return i + 1
}

// settle is a result's place in the table.
func (m *matrix) settle(kernel, row string, r result) {
	verdict := "ok " + r.took
	switch {
	case r.how == "FAIL":
		verdict = "FAILED " + r.took
	case r.lacks():
		verdict = fmt.Sprintf("has not [%d]", m.note(r.why()))
	case r.how == "SKIP":
		verdict = fmt.Sprintf("skipped [%d]", m.note(r.why()))
	}
	m.add(kernel, row, verdict)
}

// print shows the table at the end.
func (m *matrix) print(t *testing.T, took time.Duration) {
	var b strings.Builder
	tests, failed := 0, 0
	fmt.Fprintf(&b, "%-80s", "")
	for _, k := range m.kernels {
		fmt.Fprintf(&b, " %-22s", k)
	}
	for _, row := range m.rows {
		fmt.Fprintf(&b, "\n%-80s", row)
		for _, k := range m.kernels {
			cell := m.cells[row+k]
			if cell != "" {
				tests++
			}
			if strings.HasPrefix(cell, "FAILED") {
				failed++
			}
			fmt.Fprintf(&b, " %-22s", cell)
		}
	}
	for i, n := range m.notes {
		fmt.Fprintf(&b, "\n[%d] %s", i+1, n)
	}
	t.Logf("%d tests in guests, %d failed, in %v\n%s", tests, failed, took.Round(time.Second), b.String())
}
