package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/rules"
)

const ugly = "policy {\ninbound=\"discard\"\n  outbound   = \"bypass\"\n}\n"

// TestFmtWrites: only what is different is written; mode and symbolic link
// stay; nothing is left behind.
func TestFmtWrites(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(name, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll("conf.d", 0o755); err != nil {
		t.Fatal(err)
	}
	write("conf.d/10-a.hcl", ugly, 0o640)
	write("conf.d/20-b.hcl", "locals {\n  a = 1\n}\n", 0o600)
	write("conf.d/notes.txt", "inbound=1", 0o644)
	write("real.hcl", ugly, 0o600)
	if err := os.Symlink("../real.hcl", "conf.d/30-link.hcl"); err != nil {
		t.Fatal(err)
	}

	r := ipfw("fmt", "-check", "conf.d")
	if r.exit != 2 || r.stdout.String() != "conf.d/10-a.hcl\nconf.d/30-link.hcl\n" {
		t.Fatalf("check: exit %d, %q %q", r.exit, r.stdout.String(), r.stderr.String())
	}
	r = ipfw("fmt", "conf.d")
	if r.exit != 0 || r.stdout.String() != "conf.d/10-a.hcl\nconf.d/30-link.hcl\n" {
		t.Fatalf("fmt: exit %d, %q %q", r.exit, r.stdout.String(), r.stderr.String())
	}
	for name, mode := range map[string]os.FileMode{"conf.d/10-a.hcl": 0o640, "conf.d/20-b.hcl": 0o600, "real.hcl": 0o600} {
		info, err := os.Lstat(name)
		if err != nil || info.Mode() != mode {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
	}
	if info, err := os.Lstat("conf.d/30-link.hcl"); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is no link any more: %v", err)
	}
	if text, _ := os.ReadFile("real.hcl"); bytes.Equal(text, []byte(ugly)) {
		t.Error("the link's target was not formatted")
	}
	if r = ipfw("fmt", "-check", "conf.d"); r.exit != 0 || r.stdout.Len() > 0 {
		t.Errorf("check after fmt: exit %d, %q", r.exit, r.stdout.String())
	}
	if left, _ := filepath.Glob("conf.d/.*.tmp"); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

// TestFmtKeepsBrokenFiles: a file that cannot be parsed stays as it is, and
// the others are formatted all the same.
func TestFmtKeepsBrokenFiles(t *testing.T) {
	t.Chdir(t.TempDir())
	os.WriteFile("bad.hcl", []byte("policy {\n"), 0o644)
	os.WriteFile("ugly.hcl", []byte(ugly), 0o644)
	r := ipfw("fmt", "bad.hcl", "no-such.hcl", "ugly.hcl")
	if r.exit != 1 || r.stdout.String() != "ugly.hcl\n" ||
		!strings.Contains(r.stderr.String(), "bad.hcl line") || !strings.Contains(r.stderr.String(), "there is no file no-such.hcl") {
		t.Errorf("exit %d, %q, %q", r.exit, r.stdout.String(), r.stderr.String())
	}
	if text, _ := os.ReadFile("bad.hcl"); string(text) != "policy {\n" {
		t.Errorf("bad.hcl became %q", text)
	}
}

// TestEveryProfile: each is listed with a summary, shown, valid, formatted,
// and passes its own tests.
func TestEveryProfile(t *testing.T) {
	list := ipfw("profile", "list").stdout.String()
	for line := range strings.Lines(list) {
		name, summary, _ := strings.Cut(line, " ")
		if strings.TrimSpace(summary) == "" {
			t.Errorf("%s has no summary", name)
		}
		show := ipfw("profile", "show", name)
		if show.exit != 0 || show.stdout.Len() == 0 {
			t.Errorf("show %s: exit %d", name, show.exit)
		}
		if r := (&run{args: []string{"fmt", "-check", "-"}, stdin: show.stdout.Bytes()}).do(); r.exit != 0 {
			t.Errorf("%s is not formatted", name)
		}
		if r := ipfw("validate", "profile:"+name); r.exit != 0 || r.stderr.Len() > 0 {
			t.Errorf("validate %s: exit %d, %s", name, r.exit, r.stderr.String())
		}
		if r := ipfw("test", "profile:"+name); r.exit != 0 || !strings.Contains(r.stdout.String(), " packets in ") {
			t.Errorf("test %s: exit %d, %s", name, r.exit, r.stdout.String())
		}
	}
	if strings.Count(list, "\n") < 8 {
		t.Errorf("only these profiles:\n%s", list)
	}
}

// TestPrintIsAFixedPoint: what validate --print writes is a policy that
// prints the same.
func TestPrintIsAFixedPoint(t *testing.T) {
	workdir(t)
	for _, policy := range []string{"office.hcl", "profile:workstation", "profile:vpn-gateway"} {
		first := ipfw("validate", "--print", policy)
		if first.exit != 0 {
			t.Fatalf("%s: %s", policy, first.stderr.String())
		}
		second := (&run{args: []string{"validate", "--print", "-"}, stdin: first.stdout.Bytes()}).do()
		if second.exit != 0 || second.stdout.String() != first.stdout.String() {
			t.Errorf("%s printed again: exit %d\n%s\n%s", policy, second.exit, second.stderr.String(), second.stdout.String())
		}
	}
}

func TestCompletionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if r := ipfw("completion", shell); r.exit != 0 || !strings.Contains(r.stdout.String(), "ipfw") {
			t.Errorf("%s: exit %d", shell, r.exit)
		}
	}
}

func TestVersion(t *testing.T) {
	if r := ipfw("--version"); r.exit != 0 || !strings.HasPrefix(r.stdout.String(), "ipfw ") {
		t.Errorf("exit %d, %q", r.exit, r.stdout.String())
	}
}

// TestCompletePolicy: a word that may become a profile or a file is completed to both,
// and what can only be a file is left to the shell.
func TestCompletePolicy(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, name := range []string{"policies/", "profile.hcl", "prod.hcl", "office.hcl", ".hidden.hcl", "notes.txt"} {
		if dir, ok := strings.CutSuffix(name, "/"); !ok {
			writeFile(t, name, nil)
		} else if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("policies", "linked"); err != nil {
		t.Fatal(err)
	}
	var profiles []string
	for _, name := range rules.Profiles() {
		profiles = append(profiles, "profile:"+name)
	}
	for word, want := range map[string][]string{
		"":            append(slices.Clone(profiles), "linked/", "office.hcl", "policies/", "prod.hcl", "profile.hcl", ":4"),
		"p":           append(slices.Clone(profiles), "policies/", "prod.hcl", "profile.hcl", ":4"),
		"profile":     append(slices.Clone(profiles), "profile.hcl", ":4"),
		"profile:vpn": {"profile:vpn-client", "profile:vpn-gateway", ":4"}, "profile:x": {":4"},
		"po": {":0"}, "office": {":0"}, "./": {":0"}, "/etc/": {":0"},
	} {
		for _, args := range [][]string{{"run", "-c"}, {"shut", "-c"}, {"explain", "-c"}, {"replay", "-c"}, {"test"}, {"validate"}} {
			r := ipfw(append(append([]string{"__complete"}, args...), word)...)
			if got := strings.Fields(r.stdout.String()); !slices.Equal(got, want) {
				t.Errorf("%v %q: %v, want %v", args, word, got, want)
			}
		}
	}
}
