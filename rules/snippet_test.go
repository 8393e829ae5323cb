package rules

import (
	"fmt"
	"strings"
	"testing"
)

// TestLongLines: of a line with thousands of elements the text shows those around the
// one that is meant.
func TestLongLines(t *testing.T) {
	list := make([]string, 5000)
	for i := range list {
		list[i] = fmt.Sprintf("%q", fmt.Sprintf("10.%d.%d.0/24", i/250, i%250))
	}
	for _, at := range []int{0, 1, 2500, 4998, 4999} {
		for _, comment := range []string{"", " /* é */"} { // octets of two characters may be where it is cut
			name := fmt.Sprintf("%d%s", at, comment)
			list := append([]string(nil), list...)
			for i := range list {
				list[i] += comment
			}
			list[at] = `"192.0.2.256"`
			src := "policy {\n  inbound  = \"discard\"\n  outbound = \"bypass\"\n}\nrule \"x\" {\n  action         = \"bypass\"\n  direction      = \"in\"\n  remote_address = [" +
				strings.Join(list, ", ") + "]\n}\n"
			_, diags := Load([]string{"-"}, LoadOptions{Stdin: strings.NewReader(src)})
			var text strings.Builder
			if err := diags.WriteText(&text, 0, false); err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"on <stdin> line 8, in rule \"x\":\n   8: ", `"192.0.2.256"`, `"192.0.2.256" is not an address: write`, "..."} {
				if !strings.Contains(text.String(), want) {
					t.Errorf("%s: no %q in\n%.2000s", name, want, text.String())
				}
			}
			if n := strings.Count(text.String(), "192.0.2.256"); n != 2 {
				t.Errorf("%s: the element is there %d times, want in the source and in the sentence:\n%.2000s", name, n, text.String())
			}
			if n := text.Len(); n > maxSource+400 || strings.Contains(text.String(), "\ufffd") {
				t.Errorf("%s: %d octets:\n%.2000s", name, n, text.String())
			}
		}
	}
}

// TestLongLineBeside: a long line beside the one that is meant is left out.
func TestLongLineBeside(t *testing.T) {
	src := "policy {\n  inbound  = \"discard\"\n  outbound = \"bypass\"\n}\nlocals {\n  l = [\n" + strings.Repeat("1, ", 5000) + "\n  local.x\n  ]\n}\n"
	_, diags := Load([]string{"-"}, LoadOptions{Stdin: strings.NewReader(src)})
	var text strings.Builder
	if err := diags.WriteText(&text, 0, false); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text.String(), "local.x") || text.Len() > maxSource+400 {
		t.Errorf("%d octets:\n%.2000s", text.Len(), text.String())
	}
}
