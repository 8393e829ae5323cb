package rules

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// The reference holds every argument, function and algorithm that there is,
// and its examples parse.
func TestReference(t *testing.T) {
	b, err := os.ReadFile("../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(b)
	said := map[string]bool{}
	for _, w := range regexp.MustCompile(`[a-z0-9_+-]+`).FindAllString(doc, -1) {
		said[w] = true
	}
	var want []string
	for _, m := range []map[string]algorithm{encryptions, integrities, prfs} {
		want = append(want, keys(m)...)
	}
	for name := range keyExchanges {
		group, _, _ := strings.Cut(name, "+")
		want = append(want, group)
	}
	want = append(want, keys((&budget{}).functions())...)
	want = append(want, ruleArguments...)
	for _, src := range []string{"rule.go", "ipsec.go", "ike.go", "test.go"} {
		text, err := os.ReadFile(src)
		if err != nil {
			t.Fatal(err)
		}
		for _, call := range regexp.MustCompile(`l\.open\((?s:.*?)\}`).FindAllString(string(text), -1) {
			for _, q := range regexp.MustCompile(`"([a-z_]+)"`).FindAllStringSubmatch(call, -1) {
				want = append(want, q[1])
			}
		}
	}
	if len(want) < 100 {
		t.Fatalf("only %d names found", len(want))
	}
	for _, w := range want {
		if !said[w] && w != "essential" { // the mark on ipfw's own rules
			t.Errorf("docs/policy.md does not say %s", w)
		}
	}
	examples := regexp.MustCompile("(?s)```hcl\n(.*?)```").FindAllStringSubmatch(doc, -1)
	if len(examples) < 2 {
		t.Fatal("no examples")
	}
	for _, e := range examples {
		if _, diags := hclsyntax.ParseConfig([]byte(e[1]), "policy.md", hcl.InitialPos); diags.HasErrors() {
			t.Errorf("%v in:\n%s", diags, e[1])
		}
		if out, d := Format([]byte(e[1]), "policy.md"); string(out) != e[1] {
			t.Errorf("%v: an example is not formatted:\n%s", d.Err(), out)
		}
	}
}
