package ipfw_test

import (
	"go/ast"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// promises reads SECURITY.md: the tests of each sentence by its number, as
// "folder: name".
func promises(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	table := map[string][]string{}
	held := regexp.MustCompile("`([a-z0-9/]+)`:((?:\\s+Test\\w+,?)+)")
	for _, p := range regexp.MustCompile(`\n\s*\n`).Split(string(text), -1) {
		m := regexp.MustCompile(`^\*\*(G\d+)\.\*\* `).FindStringSubmatch(p)
		if m == nil {
			continue
		}
		if _, twice := table[m[1]]; twice {
			t.Errorf("SECURITY.md has %s twice", m[1])
		}
		table[m[1]] = nil
		for _, h := range held.FindAllStringSubmatch(p, -1) {
			for _, name := range regexp.MustCompile(`Test\w+`).FindAllString(h[2], -1) {
				table[m[1]] = append(table[m[1]], h[1]+": "+name)
			}
		}
	}
	if len(table) < 10 {
		t.Fatalf("only %d promises found: this test looks in the wrong place", len(table))
	}
	return table
}

// TestPromisesAreHeld wants each promise of SECURITY.md to name tests that are
// there, and each test of e2e/attack to name, as a word of its own, the one
// promise that it holds.
func TestPromisesAreHeld(t *testing.T) {
	table := promises(t)
	there := map[string]string{} // the promise that a test names, "" for none
	for _, s := range sources(t) {
		if !s.test {
			continue
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv != nil || !strings.HasPrefix(f.Name.Name, "Test") || f.Name.Name == "TestMain" {
				continue
			}
			var named []string
			ast.Inspect(f, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && regexp.MustCompile(`^"G\d+"$`).MatchString(lit.Value) {
					named = append(named, strings.Trim(lit.Value, `"`))
				}
				return true
			})
			name := s.dir + ": " + f.Name.Name
			there[name] = ""
			if s.dir != "e2e/attack" {
				continue
			}
			if len(named) != 1 {
				t.Errorf("%s: %s names %d promises of SECURITY.md, not one", s.at(f), f.Name.Name, len(named))
				continue
			}
			there[name] = named[0]
			if !slices.Contains(table[named[0]], name) {
				t.Errorf("%s: %s says that it holds %s, and SECURITY.md does not name it there", s.at(f), f.Name.Name, named[0])
			}
		}
	}
	for g, tests := range table {
		if len(tests) == 0 {
			t.Errorf("SECURITY.md: %s names no test", g)
		}
		for _, name := range tests {
			if of, ok := there[name]; !ok {
				t.Errorf("SECURITY.md: %s names %s, which is not there", g, name)
			} else if strings.HasPrefix(name, "e2e/attack: ") && of != g {
				t.Errorf("SECURITY.md: %s names %s, which says that it holds %q", g, name, of)
			}
		}
	}
}
