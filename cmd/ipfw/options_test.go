package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// foreignOptions are options of other programs that texts name.
var foreignOptions = map[string]string{
	"load-all": "swanctl", "initiate": "swanctl", "child": "swanctl", "list-certs": "swanctl",
	"restore-mark": "iptables", "save-mark": "iptables", "mark": "iptables", "mask": "iptables",
	"no-descriptions": "cobra's completion",
	"ports":           "iptables", "chunk-types": "iptables", "ecn-tcp-ece": "iptables", "ahlen": "iptables", "hbh-len": "iptables", "ahres": "iptables",
}

var (
	optionIn  = regexp.MustCompile(`(^|[^\w-])--([a-z][a-z0-9]*(?:-[a-z0-9]+)*)(?:[^\w-]|$)`)
	commandIn = regexp.MustCompile(`(?:^|[^/\w-])ipfw ((?:[a-z]+ ?)+)`)
)

// No text names an option that is not there: of ipfw, and of the command if the text
// names that too.
func TestNoTextNamesAnOptionThatIsNotThere(t *testing.T) {
	root := newRoot(newApp())
	known := map[string]bool{"help": true, "version": true}
	var collect func(*cobra.Command)
	collect = func(c *cobra.Command) {
		c.Flags().VisitAll(func(f *pflag.Flag) { known[f.Name] = true })
		for _, sub := range c.Commands() {
			collect(sub)
		}
	}
	collect(root)
	seen := 0
	check := func(place, text string) {
		for _, line := range strings.Split(text, "\n") {
			for _, at := range optionIn.FindAllStringSubmatchIndex(line, -1) {
				name := line[at[4]:at[5]]
				seen++
				if !known[name] && foreignOptions[name] == "" {
					t.Errorf("%s: there is no option --%s: %s", place, name, strings.TrimSpace(line))
					continue
				}
				before := line[:at[0]]
				if i := strings.LastIndexAny(before, "`'|;"); i >= 0 {
					before = before[i:]
				}
				said := commandIn.FindAllStringSubmatch(before, -1)
				if len(said) == 0 {
					continue
				}
				c, _, err := root.Find(strings.Fields(said[len(said)-1][1]))
				if err == nil && c != root && c.Flags().Lookup(name) == nil && name != "help" {
					t.Errorf("%s: %s has no option --%s: %s", place, c.CommandPath(), name, strings.TrimSpace(line))
				}
			}
		}
	}
	const top = "../.."
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch name := d.Name(); {
		case d.IsDir() && (name == ".git" || name == "testdata" || name == "e2e" || name == "bench" || name == "findings"):
			return filepath.SkipDir
		case d.IsDir(), strings.HasSuffix(name, "_test.go"):
		case strings.HasSuffix(name, ".md"), strings.HasSuffix(name, ".service"), strings.HasSuffix(name, ".hcl"):
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			check(path, string(b))
		case strings.HasSuffix(name, ".go"):
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					if s, err := strconv.Unquote(lit.Value); err == nil {
						check(set.Position(lit.Pos()).String(), s)
					}
				}
				return true
			})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 50 {
		t.Errorf("%d options found: the search finds too little", seen)
	}
}
