package rules

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// What people may write for a local that names addresses, and for one that names ports.
// Not every argument takes each.
var (
	otherAddresses = []string{
		`"172.20.0.0/16"`, `["fd12:3456::/48"]`, `"172.20.5.77"`, `"2001:db8:77::7"`, `"172.20.5.10-172.20.5.20"`,
		`["10.77.0.0/24", ["fd77::/64", "192.0.2.128/28"], "192.0.2.9"]`, `toset(["10.77.0.0/24", "fd77::/64"])`,
		`["203.0.113.0/24", "198.51.100.0/24", "192.0.2.0/24", "2001:db8::/32"]`, `["0.0.0.0/0", "::/0"]`, `"any"`, `[]`,
		`[for n in range(20) : "10.77.${n}.0/24"]`, `[file("some.txt"), "172.20.5.77"]`, `[file("none.txt"), "fd12::/64"]`, `"gw.example.net"`,
	}
	otherPorts = []string{`8443`, `"3128"`, `"8000-8099"`, `["http", "http-alt", 9000]`, `["8000 - 8099", [443]]`, `[]`, `range(2000, 2020)`}
)

// profileParts gives the locals that people change, those of the first locals block, and
// the profile without tests.
func profileParts(t *testing.T, name string) (text string, locals []*hclsyntax.Attribute, untested string) {
	t.Helper()
	src, err := Profile(name)
	if err != nil {
		t.Fatal(err)
	}
	f, diags := hclsyntax.ParseConfig(src, name, hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	untested = string(src)
	for _, b := range slices.Backward(f.Body.(*hclsyntax.Body).Blocks) {
		switch b.Type {
		case "test":
			untested = untested[:b.Range().Start.Byte] + untested[b.CloseBraceRange.End.Byte:]
		case "locals":
			locals = sortedAttrs(b.Body)
		}
	}
	return string(src), locals, untested
}

// kindOf says what a local names.
func kindOf(t *testing.T, a *hclsyntax.Attribute) string {
	t.Helper()
	v, diags := a.Expr.Value(nil)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	if v.Type().IsTupleType() && v.LengthInt() > 0 {
		v = v.Index(cty.NumberIntVal(0))
	}
	s, ok := asText(v)
	switch {
	case !ok:
		return ""
	case isNumber(s):
		return "port"
	}
	if _, err := parseAddrRange(s); err == nil {
		return "address"
	}
	return ""
}

// TestProfileLocals: whoever changes the locals of a profile need not change its tests.
// What a profile without tests takes, it takes with them, and they pass.
func TestProfileLocals(t *testing.T) {
	for _, name := range Profiles() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			changeLocals(t, name)
		})
	}
}

func changeLocals(t *testing.T, name string) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("some.txt", "# ours\n172.21.0.0/16\nfd21::/64\n")
	write("none.txt", "# nobody\n")
	good := func(text string) (*Policy, error) {
		write("policy.hcl", text)
		p, d := Load([]string{filepath.Join(dir, "policy.hcl")}, LoadOptions{})
		return p, d.Err()
	}
	text, locals, untested := profileParts(t, name)
	if len(locals) == 0 {
		t.Error("no locals")
	}
	with := func(text string, values map[string]string) string {
		for _, a := range slices.Backward(locals) {
			if v, ok := values[a.Name]; ok {
				r := a.Expr.Range()
				text = text[:r.Start.Byte] + v + text[r.End.Byte:]
			}
		}
		return text
	}
	legal := func(values map[string]string) bool {
		_, err := good(with(untested, values))
		return err == nil
	}
	try := func(values map[string]string) {
		p, err := good(with(text, values))
		if err != nil {
			t.Errorf("with %v: %v", values, err)
			return
		}
		if len(values) == len(locals) {
			fixedPoint(t, p)
		}
		for _, r := range p.RunTests() {
			if !r.Pass {
				t.Errorf("with %v: %s: %s: %s", values, r.Place, r.Packet, r.Why)
			}
		}
	}
	together := make([]map[string]string, 4)
	for n, a := range locals {
		others := otherAddresses
		apart := []string{ // what no other local has
			fmt.Sprintf(`["fd%02x::/64", "10.%d.0.0/24", "10.%d.1.5"]`, 0x30+n, 100+n, 100+n),
			fmt.Sprintf(`["10.%d.0.0/24", "fd%02x::/64"]`, 100+n, 0x30+n),
			fmt.Sprintf(`"10.%d.0.7"`, 100+n), fmt.Sprintf(`"fd%02x::7"`, 0x30+n),
		}
		switch kindOf(t, a) {
		case "address":
		case "port":
			others, apart = otherPorts, []string{`"8000-8099"`, `["http", 3128]`, `8443`, `[]`}
		default:
			t.Errorf("local.%s: what does it name?", a.Name)
		}
		taken := 0
		for _, v := range others {
			if values := map[string]string{a.Name: v}; legal(values) {
				try(values)
				taken++
			}
		}
		if taken == 0 {
			t.Errorf("local.%s was not changed", a.Name)
		}
		for k := range together {
			if together[k] == nil {
				together[k] = map[string]string{}
			}
			for i := range apart {
				if v := apart[(k+i)%len(apart)]; legal(map[string]string{a.Name: v}) {
					together[k][a.Name] = v
					break
				}
			}
		}
	}
	// Both ends of a tunnel are of one family.
	for _, values := range []map[string]string{{"outside": `"2001:db8:77::1"`, "peer": `["2001:db8:78::1"]`}, {"outside": `["172.20.5.1"]`, "peer": `"172.20.5.2"`}} {
		if name == "two-offices" {
			if !legal(values) {
				t.Errorf("%v is not taken", values)
			}
			try(values)
		}
	}
	changed := 0
	for _, values := range together {
		if len(values) == len(locals) && legal(values) {
			try(values)
			changed++
		}
	}
	if changed < 2 {
		t.Errorf("all locals were changed together %d times only", changed)
	}
}

// TestProfileAddresses: what a profile's rules, ipsec and ike blocks name is in its
// locals, where people look, but for groups, which are the same everywhere.
func TestProfileAddresses(t *testing.T) {
	for _, name := range Profiles() {
		text, _, _ := profileParts(t, name)
		f, _ := hclsyntax.ParseConfig([]byte(text), name, hcl.InitialPos)
		for _, b := range f.Body.(*hclsyntax.Body).Blocks {
			if b.Type == "locals" || b.Type == "test" {
				continue
			}
			hclsyntax.VisitAll(b.Body, func(n hclsyntax.Node) hcl.Diagnostics {
				if l, ok := n.(*hclsyntax.LiteralValueExpr); ok && l.Val.Type() == cty.String {
					if r, err := parseAddrRange(l.Val.AsString()); err == nil && !r.First.IsMulticast() {
						t.Errorf("%s:%d: %s stands in %s %v and not in a local", name, l.SrcRange.Start.Line, r, b.Type, b.Labels)
					}
				}
				return nil
			})
		}
	}
}
