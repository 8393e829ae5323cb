package rules

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// maxErrors is how many errors are told, and how many warnings of a kind: a file that
// is no policy has an error in every line, and each is printed with its piece of
// source.
const maxErrors = 20

// shortening counts what is told. Warnings are counted by their summaries, so that
// many of a kind do not hide the one of another.
type shortening struct {
	errors   int
	warnings map[string]int
	kinds    []string // of warnings, in order
}

// leavesOut takes note of a diagnostic, and says whether it is one too many.
func (s *shortening) leavesOut(isError bool, summary string) bool {
	if isError {
		s.errors++
		return s.errors > maxErrors
	}
	if s.warnings == nil {
		s.warnings = map[string]int{}
	}
	if s.warnings[summary] == 0 {
		s.kinds = append(s.kinds, summary)
	}
	s.warnings[summary]++
	return s.warnings[summary] > maxErrors
}

// rest gives what stands for those that were left out.
func (s *shortening) rest(yield func(sev hcl.DiagnosticSeverity, summary, detail string)) {
	if n := s.errors - maxErrors; n > 0 {
		yield(hcl.DiagError, fmt.Sprintf("And %d more", n),
			"They are not shown: put right those above first, or name the file that is the policy.")
	}
	left, of := 0, []string(nil)
	for _, kind := range s.kinds {
		if n := s.warnings[kind] - maxErrors; n > 0 {
			left += n
			of = append(of, fmt.Sprintf("%d of %q", n, kind))
		}
	}
	if left > 0 {
		yield(hcl.DiagWarning, fmt.Sprintf("And %d more", left), "They are not shown: "+strings.Join(of, ", ")+".")
	}
}

// shorten keeps the first errors and warnings, and says how many more there are.
func (d *Diagnostics) shorten() {
	var s shortening
	d.list = slices.DeleteFunc(d.list, func(h *hcl.Diagnostic) bool { return s.leavesOut(h.Severity == hcl.DiagError, h.Summary) })
	s.rest(func(sev hcl.DiagnosticSeverity, summary, detail string) {
		d.list = append(d.list, &hcl.Diagnostic{Severity: sev, Summary: summary, Detail: detail})
	})
}

// Shorten is for lists that are made elsewhere: it keeps the first 20 errors, and of
// warnings the first 20 with the same summary, and says at the end how many more there are,
// as Load does.
func Shorten(list []Diagnostic) (out []Diagnostic) {
	var s shortening
	for _, d := range list {
		if !s.leavesOut(d.Severity == "error", d.Summary) {
			out = append(out, d)
		}
	}
	s.rest(func(sev hcl.DiagnosticSeverity, summary, detail string) {
		d := Diagnostic{Severity: "error", Summary: summary, Detail: detail}
		if sev == hcl.DiagWarning {
			d.Severity = "warning"
		}
		out = append(out, d)
	})
	return out
}
