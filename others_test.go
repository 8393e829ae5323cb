package ipfw_test

import (
	"go/ast"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestOthersAreHeld wants every test that docs/others.md names to be in the folder
// that it names, and every row to name one.
func TestOthersAreHeld(t *testing.T) {
	text, err := os.ReadFile("docs/others.md")
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for _, s := range sources(t) {
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && s.test && f.Recv == nil {
				there[s.dir+": "+f.Name.Name] = true
			}
		}
	}
	held := regexp.MustCompile("`([a-z0-9/]+)`: (Test\\w+(?:, Test\\w+)*)")
	rows, numbers := 0, map[string]bool{}
	for _, line := range strings.Split(string(text), "\n") {
		found := held.FindAllStringSubmatch(line, -1)
		if strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| kind") {
			if rows++; len(found) == 0 {
				t.Errorf("no test holds %.60s", line)
			}
		}
		for _, h := range found {
			for _, name := range strings.Split(h[2], ", ") {
				if !there[h[1]+": "+name] {
					t.Errorf("%s has no %s", h[1], name)
				}
			}
		}
		for _, n := range regexp.MustCompile(`CVE-\d+-\d+`).FindAllString(line, -1) {
			if numbers[n] {
				t.Errorf("%s stands in two rows", n)
			}
			numbers[n] = true
		}
	}
	if rows < 10 || len(numbers) != 22+4 {
		t.Errorf("%d rows with %d numbers: want 22 of strongSwan and 4 of libreswan", rows, len(numbers))
	}
}
