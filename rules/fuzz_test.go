package rules

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whatever the bytes are: no panic, and either a policy that prints to a fixed
// point and passes through Format, or at least one error.
func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"testdata/*/*.hcl", "../examples/rules/*.hcl"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatalf("no files %s (%v)", pattern, err)
		}
		for _, name := range files {
			src, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(src)
		}
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		p, d := Load([]string{"-"}, LoadOptions{Stdin: bytes.NewReader(src), SSHConnection: "192.0.2.1 1 192.0.2.2 22", SSHInterface: "eth0"})
		if (p == nil) != d.HasErrors() {
			t.Fatalf("policy: %v, errors: %v", p != nil, d.Err())
		}
		var b bytes.Buffer
		if err := d.WriteText(&b, 80, false); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsFunc(b.String(), func(r rune) bool { return r == 0x1b || r == 0 }) {
			t.Fatalf("control characters in %q", b.String())
		}
		for _, v := range d.All() {
			if v.Line < 0 || v.Line > bytes.Count(src, []byte("\n"))+1 {
				t.Fatalf("%v is not in the file", v)
			}
		}
		if p != nil {
			fixedPoint(t, p)
			p.RunTests()
		}
		if out, d := Format(src, "x"); !d.HasErrors() {
			if again, d := Format(out, "x"); d.HasErrors() || !bytes.Equal(out, again) {
				t.Fatalf("Format is no fixed point:\n%q\n%q\n%v", out, again, d.Err())
			}
		}
	})
}
