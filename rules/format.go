package rules

import (
	"bytes"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
)

// Format writes a policy file in the canonical form: two blanks for each
// level, equals signs under one another, one argument in a line. What the file
// says, and its comments, stay. A file that cannot be parsed is an error with
// the file's name, and comes back as nil.
func Format(src []byte, name string) ([]byte, Diagnostics) {
	d := Diagnostics{files: map[string]*hcl.File{name: {Bytes: src}}}
	if err := notText(src); err != nil {
		d.list = append(d.list, noTextDiag(name, err))
		return nil, d
	}
	text, diags := unfold(name, src)
	if !diags.HasErrors() {
		_, diags = hclsyntax.ParseConfig(text.src, name, hcl.InitialPos)
	}
	for _, h := range diags {
		if text != nil && h.Subject != nil {
			r := text.back(*h.Subject)
			h = &hcl.Diagnostic{Severity: h.Severity, Summary: h.Summary, Detail: h.Detail, Subject: &r}
		}
		d.list = append(d.list, h)
	}
	d.shorten()
	if d.HasErrors() {
		return nil, d
	}
	trimmed := bytes.TrimRight(text.src, " \t\r\n")
	if len(trimmed) == 0 {
		return []byte{}, d
	}
	return hclwrite.Format(append(trimmed[:len(trimmed):len(trimmed)], '\n')), d
}
