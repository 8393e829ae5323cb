package main

import (
	"os"
	"strings"
	"testing"
)

// TestReadme tries what the README tells people to try: its policy with its
// tests, and the packet that it explains, word for word.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := func(lang string) (out []string) {
		for _, part := range strings.Split(string(text), "\n```"+lang+"\n")[1:] {
			body, _, _ := strings.Cut(part, "```")
			out = append(out, body)
		}
		return out
	}
	hcl := blocks("hcl")
	if len(hcl) != 3 {
		t.Fatalf("%d blocks of HCL, want a policy, a test, and the policy of two hosts", len(hcl))
	}
	if n := strings.Count(hcl[0], "\n"); n > 10 {
		t.Errorf("the first policy has %d lines, want ten", n)
	}
	t.Chdir(t.TempDir())
	if err := os.WriteFile("first.hcl", []byte(hcl[0]), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := ipfw("validate", "first.hcl"); r.exit != 0 || r.stderr.Len() > 0 {
		t.Errorf("validate: exit %d, %s", r.exit, r.stderr.String())
	}
	if r := ipfw("fmt", "-check", "first.hcl"); r.exit != 0 {
		t.Errorf("the first policy is not formatted")
	}
	if r := (&run{args: []string{"fmt", "-check", "-"}, stdin: []byte(hcl[2])}).do(); r.exit != 0 {
		t.Errorf("the policy of two hosts is not formatted: %s%s", r.stdout.String(), r.stderr.String())
	}
	if r := ipfw("explain", "-c", "first.hcl", db); !strings.Contains(string(text), r.stdout.String()) {
		t.Errorf("README does not show what explain says:\n%s", r.stdout.String())
	}
	r := (&run{args: []string{"test", "-"}, stdin: []byte(hcl[0] + hcl[1])}).do()
	if r.exit != 0 {
		t.Errorf("test: %s%s", r.stdout.String(), r.stderr.String())
	}
}
