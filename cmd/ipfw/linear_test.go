package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// A list of addresses four times as long takes no more than about four times as
// many statements, in our code and in HCL's, whatever is done with it. They are
// counted, as the tests' coverage is: no clock, and no busy machine, has a say.
func TestLongListsAreLinear(t *testing.T) {
	dir := t.TempDir()
	bin := filepath.Join(dir, "ipfw")
	build := exec.Command("go", "build", "-cover", "-covermode=count", "-coverpkg=github.com/ipfw/ipfw/...,github.com/hashicorp/hcl/v2/...,github.com/zclconf/go-cty/...", "-o", bin, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const head = "policy {\n  inbound  = \"discard\"\n  outbound = \"bypass\"\n}\n"
	rule := func(name, list string) string {
		return fmt.Sprintf("rule %q {\n  action         = \"discard\"\n  direction      = \"both\"\n  remote_address = %s\n}\n", name, list)
	}
	const trial = "test \"t\" {\n  expect \"discard\" { packet = \"in tcp 10.0.0.3:9 -> 192.0.2.1:443\" }\n}\n"
	forms := map[string]func(addrs []string) string{
		"written": func(a []string) string { return rule("a", `["`+strings.Join(a, `", "`)+`"]`) },
		"locals": func(a []string) string {
			return "locals {\n  a = [\"" + strings.Join(a, "\",\n\"") + "\"]\n  b = [for x in local.a : x if x != \"\"]\n}\n" +
				rule("a", `distinct(concat(local.a, ["192.0.2.1"]))`) + rule("b", "reverse(sort(local.b))") + rule("c", "local.a")
		},
		"file": func(a []string) string {
			if err := os.WriteFile(filepath.Join(dir, "list"), []byte(strings.Join(a, "\n")), 0o644); err != nil {
				t.Fatal(err)
			}
			return rule("a", `file("list")`) + rule("b", `[file("list"), "192.0.2.1"]`)
		},
	}
	commands := map[string][]string{
		"validate": {"validate"}, "print": {"validate", "--print"}, "fmt": {"fmt"}, "test": {"test"},
		"explain": {"explain", "in tcp 10.0.0.3:9 -> 192.0.2.1:443", "-c"},
	}
	const few, many = 2000, 8000 // above the bound of the classifier's boxes
	path := filepath.Join(dir, "list.hcl")
	for form, text := range forms {
		for what, args := range commands {
			count := func(n int) float64 {
				addrs := make([]string, n)
				for i := range addrs { // in no order, none beside another
					x := uint32(i) * 2654435761 >> 8
					addrs[i] = fmt.Sprintf("10.%d.%d.%d", x>>16, x>>8&255, x&255)
				}
				if err := os.WriteFile(path, []byte(head+text(addrs)+trial), 0o644); err != nil {
					t.Fatal(err)
				}
				return statements(t, bin, append(args[:len(args):len(args)], path))
			}
			a, b := count(few), count(many)
			t.Logf("%s, %s: %.0f and %.0f statements, %.2f times", form, what, a, b, b/a)
			if b/a > 1.3*many/few {
				t.Errorf("%s, %s: %d addresses take %.2f times as many statements as %d", form, what, many, b/a, few)
			}
		}
	}
}

// statements runs a program that was built for coverage, and gives how many
// statements it has executed.
func statements(t *testing.T, bin string, args []string) (n float64) {
	t.Helper()
	dir := t.TempDir()
	c := exec.Command(bin, args...)
	c.Env = append(os.Environ(), "GOCOVERDIR="+dir)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%.1000s", args, err, out)
	}
	profile := filepath.Join(dir, "profile")
	if out, err := exec.Command("go", "tool", "covdata", "textfmt", "-i="+dir, "-o="+profile).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text, err := os.ReadFile(profile)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) { // file:from,to statements count
		f := strings.Fields(string(line))
		if len(f) != 3 {
			continue
		}
		stmts, err1 := strconv.ParseFloat(f[1], 64)
		count, err2 := strconv.ParseFloat(f[2], 64)
		if err1 != nil || err2 != nil {
			t.Fatalf("%q", line)
		}
		n += stmts * count
	}
	if n == 0 {
		t.Fatal("nothing was counted")
	}
	return n
}
