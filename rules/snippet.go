package rules

import (
	"bytes"
	"maps"
	"strings"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
)

// maxSource is how many octets of a line are shown with a diagnostic. A list of
// thousands of addresses in one line would hide the sentence about one of them.
const maxSource = 400

// blockOf says which block a piece of source stands in, as the parser found it in the
// whole file.
type blockOf string

// ContextString is what hcl's writer asks for.
func (b blockOf) ContextString(int) string { return string(b) }

// narrow gives the files and the diagnostic to be shown: where a line is long, only
// what is around the place that is meant. Line numbers stay.
func narrow(files map[string]*hcl.File, d *hcl.Diagnostic) (map[string]*hcl.File, *hcl.Diagnostic) {
	if d.Subject == nil || files[d.Subject.Filename] == nil {
		return files, d
	}
	file, subject := files[d.Subject.Filename], *d.Subject
	src := file.Bytes
	if subject.Start.Line < 1 || subject.End.Byte < subject.Start.Byte || subject.End.Byte > len(src) || longest(src, d) <= maxSource {
		return files, d
	}
	start, end := bytes.LastIndexByte(src[:subject.Start.Byte], '\n')+1, len(src)
	if i := bytes.IndexByte(src[subject.Start.Byte:], '\n'); i >= 0 {
		end = subject.Start.Byte + i
	}
	from, to := runeAt(src, max(start, subject.Start.Byte-maxSource/4)), runeAt(src, min(end, subject.Start.Byte+maxSource*3/4))
	before, after := "", ""
	if from > start {
		before = "... "
	}
	if to < end {
		after = " ..."
	}
	lines := strings.Repeat("\n", subject.Start.Line-1)
	cut := &hcl.File{Bytes: []byte(lines + before + string(src[from:to]) + after + "\n"), Nav: blockOf("")}
	if nav, ok := file.Nav.(interface{ ContextString(offset int) string }); ok {
		cut.Nav = blockOf(nav.ContextString(subject.Start.Byte))
	}
	moved := len(lines) + len(before) - from
	subject.End.Byte = min(subject.End.Byte, to) + moved
	subject.Start.Byte += moved
	files = maps.Clone(files)
	files[subject.Filename] = cut
	out := *d
	out.Subject, out.Context = &subject, nil
	return files, &out
}

// longest gives the length of the longest line that hcl's writer would show.
func longest(src []byte, d *hcl.Diagnostic) (octets int) {
	shown := *d.Subject
	if d.Context != nil {
		shown = hcl.RangeOver(shown, *d.Context)
	}
	start := bytes.LastIndexByte(src[:min(shown.Start.Byte, len(src))], '\n') + 1
	for line := range bytes.Lines(src[start:]) {
		octets = max(octets, len(line))
		if start += len(line); start >= shown.End.Byte {
			break
		}
	}
	return octets
}

// runeAt moves a place in a text back to where a character begins.
func runeAt(src []byte, i int) int {
	for i > 0 && i < len(src) && !utf8.RuneStart(src[i]) {
		i--
	}
	return i
}
