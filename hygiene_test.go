// Package ipfw_test holds the house rules of the whole module: who may import
// whom, what must be commented, how long a file may grow.
package ipfw_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/ipfw/ipfw"

// maxLines is the longest a source file may be, tests included.
const maxLines = 500

// source is one parsed Go file of the module.
type source struct {
	path string // with slashes, from the root of the module
	dir  string
	room string // first element of dir; "" for the root
	test bool
	file *ast.File
	fset *token.FileSet
	text string
}

// sources parses every Go file, whatever its build tags.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path != "." && (name[0] == '.' || name[0] == '_' || name == "testdata") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		s := source{path: filepath.ToSlash(path), test: strings.HasSuffix(name, "_test.go"), text: string(text), fset: token.NewFileSet()}
		if s.dir = filepath.ToSlash(filepath.Dir(path)); s.dir != "." {
			s.room, _, _ = strings.Cut(s.dir, "/")
		}
		if s.file, err = parser.ParseFile(s.fset, path, text, parser.ParseComments); err != nil {
			return err
		}
		all = append(all, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("only %d Go files found: this test looks in the wrong place", len(all))
	}
	return all
}

// at is the place of a node, for people.
func (s *source) at(n ast.Node) string {
	return s.fset.Position(n.Pos()).String()
}

// arrows reads the table that is drawn in docs/design.md: "room -> a, b".
// A room in another's folder (engine/classify) has a line of its own.
func arrows(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("docs/design.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, ok := strings.Cut(string(text), "```arrows\n")
	block, _, end := strings.Cut(block, "```")
	if !ok || !end {
		t.Fatal("docs/design.md has no ```arrows block")
	}
	table := map[string][]string{}
	for line := range strings.Lines(block) {
		from, to, ok := strings.Cut(line, "->")
		if !ok {
			t.Fatalf("docs/design.md: %q is no arrow", line)
		}
		var rooms []string
		for r := range strings.SplitSeq(to, ",") {
			if r = strings.TrimSpace(r); r != "-" {
				rooms = append(rooms, r)
			}
		}
		table[strings.TrimSpace(from)] = rooms
	}
	return table
}

// TestArrows holds the imports to the drawing. Tests may import more: they
// build packets and policies for the room they test.
func TestArrows(t *testing.T) {
	table := arrows(t)
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		from := s.dir
		if _, ok := table[from]; !ok {
			from = s.room
		}
		allowed, ok := table[from]
		if !ok {
			t.Errorf("%s: room %q has no line among the arrows of docs/design.md", s.path, s.dir)
			continue
		}
		for _, imp := range s.file.Imports {
			path, _ := strconv.Unquote(imp.Path.Value)
			switch to, inside := strings.CutPrefix(path, module+"/"); {
			case inside && to != from && !slices.Contains(allowed, to):
				t.Errorf("%s: %s -> %s is not drawn in docs/design.md; draw it first", s.at(imp), from, to)
			case !inside && strings.Contains(strings.Split(path, "/")[0], "."):
				if !slices.ContainsFunc(allowed, func(a string) bool { return path == a || strings.HasPrefix(path, a+"/") }) {
					t.Errorf("%s: %s may not use %s: docs/design.md does not say so", s.at(imp), from, path)
				}
			}
		}
	}
}

// TestArrowsHaveNoCircle looks at the drawing itself.
func TestArrowsHaveNoCircle(t *testing.T) {
	table := arrows(t)
	var walk func(room string, path []string)
	walk = func(room string, path []string) {
		if slices.Contains(path, room) {
			t.Fatalf("a circle: %s", strings.Join(append(path, room), " -> "))
		}
		for _, to := range table[room] {
			walk(to, append(path, room))
		}
	}
	for room := range table {
		walk(room, nil)
	}
}

// TestDependencies wants a reason in docs/design.md for each module that
// go.mod asks for directly.
func TestDependencies(t *testing.T) {
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	design, err := os.ReadFile("docs/design.md")
	if err != nil {
		t.Fatal(err)
	}
	require := regexp.MustCompile(`(?m)^(?:require)?\s+(\S+\.\S+/\S+) v\S+$`)
	for _, m := range require.FindAllStringSubmatch(string(mod), -1) {
		if !strings.Contains(string(design), "| `"+m[1]+"`") {
			t.Errorf("docs/design.md gives no reason for %s", m[1])
		}
	}
}

// TestPackageComments wants one in each package that is not only tests.
func TestPackageComments(t *testing.T) {
	commented := map[string]bool{}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		commented[s.dir] = commented[s.dir] || false
		if doc := s.file.Doc; doc != nil {
			text := doc.Text()
			if strings.HasPrefix(text, "Package "+s.file.Name.Name) || s.file.Name.Name == "main" && strings.HasPrefix(text, "Command ") {
				commented[s.dir] = true
			}
		}
	}
	for dir, ok := range commented {
		if !ok {
			t.Errorf("%s has no package comment", dir)
		}
	}
}

// TestExportedNamesHaveComments looks at functions, methods, types and the
// groups of constants and variables.
func TestExportedNamesHaveComments(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || s.file.Name.Name == "main" {
			continue
		}
		for _, d := range s.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) {
					t.Errorf("%s: %s has no comment", s.at(d), d.Name.Name)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					names, doc := specNames(spec)
					for _, n := range names {
						if n.IsExported() && d.Doc == nil && !doc {
							t.Errorf("%s: %s has no comment", s.at(n), n.Name)
						}
					}
				}
			}
		}
	}
}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if generic, ok := typ.(*ast.IndexExpr); ok {
		typ = generic.X
	}
	id, ok := typ.(*ast.Ident)
	return ok && id.IsExported()
}

func specNames(spec ast.Spec) (names []*ast.Ident, doc bool) {
	switch spec := spec.(type) {
	case *ast.TypeSpec:
		return []*ast.Ident{spec.Name}, spec.Doc != nil || spec.Comment != nil
	case *ast.ValueSpec:
		return spec.Names, spec.Doc != nil || spec.Comment != nil
	}
	return nil, true
}

// TestFileLength keeps rooms small. Generated tables are not counted.
func TestFileLength(t *testing.T) {
	for _, s := range sources(t) {
		if n := strings.Count(s.text, "\n"); n > maxLines && !ast.IsGenerated(s.file) {
			t.Errorf("%s has %d lines, and %d is the most: split it by what its parts are about", s.path, n, maxLines)
		}
	}
}

// TestOnlyCommandsPrintAndExit looks for what ends or talks past them, and for
// init functions.
func TestOnlyCommandsPrintAndExit(t *testing.T) {
	forbidden := map[string]string{
		"fmt": "Print Printf Println", "os": "Exit Stdout Stdin Stderr",
		"log": "Print Printf Println Fatal Fatalf Fatalln Panic Panicf Panicln",
	}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Recv == nil && n.Name.Name == "init" {
					t.Errorf("%s: an init function", s.at(n))
				}
			case *ast.SelectorExpr:
				pkg, ok := n.X.(*ast.Ident)
				if ok && s.file.Name.Name != "main" && slices.Contains(strings.Fields(forbidden[pkg.Name]), n.Sel.Name) {
					t.Errorf("%s: %s.%s belongs in a command", s.at(n), pkg.Name, n.Sel.Name)
				}
			}
			return true
		})
	}
}

// TestNoMirrors wants scripts to take packages from where the machine's own
// configuration says, not from a host of ours.
func TestNoMirrors(t *testing.T) {
	scripts, err := filepath.Glob("*/*.sh")
	if err != nil {
		t.Fatal(err)
	}
	hidden, err := filepath.Glob(".ci/*")
	if err != nil {
		t.Fatal(err)
	}
	if len(hidden) < 2 || !slices.Contains(scripts, "e2e/install.sh") {
		t.Fatalf("found %q and %q: this test looks in the wrong place", scripts, hidden)
	}
	host := regexp.MustCompile(`\b(https?|ftp)://[a-zA-Z0-9]`)
	for _, path := range append(append(scripts, hidden...), "Makefile") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if m := host.Find(text); m != nil && !strings.HasPrefix(path, "findings/") { // they name what they pin
			t.Errorf("%s names a host: %s...", path, m)
		}
	}
}
