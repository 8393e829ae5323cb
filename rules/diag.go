package rules

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
)

// Diagnostic is one error or warning, for programs; WriteText prints the same
// for people, with the source.
type Diagnostic struct {
	Severity string `json:"severity"` // "error" or "warning"
	Summary  string `json:"summary"`
	Detail   string `json:"detail,omitempty"`
	File     string `json:"file,omitempty"`
	Line     int    `json:"line,omitempty"`   // from 1; 0: the whole file, or none
	Column   int    `json:"column,omitempty"` // from 1, in characters
	EndLine  int    `json:"end_line,omitempty"`
	EndCol   int    `json:"end_column,omitempty"`
}

// String gives the diagnostic in one line: "file:line:column: error: ...".
func (d Diagnostic) String() string {
	var b strings.Builder
	if d.File != "" {
		b.WriteString(d.File)
		if d.Line > 0 {
			fmt.Fprintf(&b, ":%d:%d", d.Line, d.Column)
		}
		b.WriteString(": ")
	}
	fmt.Fprintf(&b, "%s: %s", d.Severity, d.Summary)
	if d.Detail != "" {
		b.WriteString(": " + strings.Join(strings.Fields(d.Detail), " "))
	}
	return b.String()
}

// Diagnostics is everything Load or Format has to say. The zero value is empty.
type Diagnostics struct {
	list  hcl.Diagnostics
	files map[string]*hcl.File
}

// HasErrors reports whether anything in it is an error and not a warning.
func (d Diagnostics) HasErrors() bool { return d.list.HasErrors() }

// Len is the number of errors and warnings.
func (d Diagnostics) Len() int { return len(d.list) }

// All gives every diagnostic, in the order of files and lines.
func (d Diagnostics) All() []Diagnostic {
	out := make([]Diagnostic, 0, len(d.list))
	for _, h := range d.list {
		v := Diagnostic{Severity: "error", Summary: h.Summary, Detail: h.Detail}
		if h.Severity == hcl.DiagWarning {
			v.Severity = "warning"
		}
		if h.Subject != nil {
			v.File = h.Subject.Filename
			v.Line, v.Column = h.Subject.Start.Line, h.Subject.Start.Column
			v.EndLine, v.EndCol = h.Subject.End.Line, h.Subject.End.Column
		}
		out = append(out, v)
	}
	return out
}

// MarshalJSON gives a list of Diagnostic.
func (d Diagnostics) MarshalJSON() ([]byte, error) { return json.Marshal(d.All()) }

// Err gives all errors as one error, one line each, or nil when there are
// none; warnings are left out.
func (d Diagnostics) Err() error {
	if !d.HasErrors() {
		return nil
	}
	var lines []string
	for _, v := range d.All() {
		if v.Severity == "error" {
			lines = append(lines, v.String())
		}
	}
	return fmt.Errorf("%s", strings.Join(lines, "\n"))
}

// WriteText prints every diagnostic with its piece of source, in lines of at
// most width columns (0: no limit), in colour when asked. Of a long line of source
// it shows what is around the place.
func (d Diagnostics) WriteText(w io.Writer, width uint, color bool) error {
	for _, h := range d.list {
		files, h := narrow(d.files, h)
		if err := hcl.NewDiagnosticTextWriter(w, files, width, color).WriteDiagnostic(h); err != nil {
			return err
		}
	}
	return nil
}

// sortByPlace puts diagnostics in the order of the files and lines, those
// without a place first; errors and warnings mix, as their lines do.
func (d *Diagnostics) sortByPlace(order map[string]int) {
	sort.SliceStable(d.list, func(i, j int) bool {
		a, b := d.list[i].Subject, d.list[j].Subject
		if a == nil || b == nil {
			return a == nil && b != nil
		}
		if a.Filename != b.Filename {
			return order[a.Filename] < order[b.Filename]
		}
		return a.Start.Byte < b.Start.Byte
	})
}

// noTextDiag is the one error of a file that is no text.
func noTextDiag(name string, err error) *hcl.Diagnostic {
	return &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Not a policy", Detail: shown(name) + ": " + err.Error() + "."}
}

// printable puts a question mark in place of each byte that would do something
// to a terminal, or is no text; nothing moves.
func printable(src []byte) []byte {
	out := slices.Clone(src)
	for i := 0; i < len(out); {
		r, n := utf8.DecodeRune(out[i:])
		if r == utf8.RuneError && n == 1 || r < ' ' && r != '\n' && r != '\t' && r != '\r' || r >= 0x7f && r < 0xa0 {
			for k := range n {
				out[i+k] = '?'
			}
		}
		i += n
	}
	return out
}

// place gives "file:line" of a range.
func place(r hcl.Range) string { return fmt.Sprintf("%s:%d", r.Filename, r.Start.Line) }

// posAt gives the position of a byte in a file.
func posAt(src []byte, off int) hcl.Pos {
	off = min(max(off, 0), len(src))
	start := bytes.LastIndexByte(src[:off], '\n') + 1
	return hcl.Pos{
		Line:   bytes.Count(src[:off], []byte{'\n'}) + 1,
		Column: utf8.RuneCount(src[start:off]) + 1,
		Byte:   off,
	}
}
