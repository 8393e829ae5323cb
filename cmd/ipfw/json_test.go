package main

import (
	"encoding"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/host"
)

// jsonForms are what each command prints with --json: docs/json.md has a table for
// each, which TestJSONDocs makes from the types and their comments.
func jsonForms() []struct {
	command string
	form    string // one object, one array, or lines
	types   []any
} {
	type form = struct {
		command, form string
		types         []any
	}
	const object, lines = "one object", "one object on a line for each"
	return []form{
		{"any command that fails", object, []any{failure{}}},
		{"ipfw status", object, []any{host.Status{}}},
		{"ipfw show", object, []any{host.PolicyText{}}},
		{"ipfw flows", lines + " flow", []any{host.Flow{}}},
		{"ipfw sas", lines + " SA", []any{host.SA{}}},
		{"ipfw sas --wireshark-keys", object, []any{host.WiresharkKeys{}}},
		{"ipfw ike list", lines + " IKE SA", []any{host.IKESA{}}},
		{"ipfw ike initiate, rekey, terminate", object, []any{host.IKEResult{}}},
		{"ipfw events", lines + " event", []any{host.Event{}}},
		{"ipfw reload", object, []any{host.ReloadResult{}}},
		{"ipfw confirm", object, []any{host.Confirmation{}}},
		{"ipfw validate", object, []any{validation{}}},
		{"ipfw fmt", object, []any{formatted{}}},
		{"ipfw test", lines + " packet", []any{testLine{}}},
		{"ipfw explain", object, []any{explanation{}}},
		{"ipfw replay", object, []any{replayReport{}}},
		{"ipfw replay --packets", lines + " packet, and a last one with the report", []any{packetReport{}, replayEnd{}}},
		{"ipfw profile list", "one array of objects", []any{profileEntry{}}},
		{"ipfw demo", lines + " connection, and a last one with the protected flow", []any{probe{}, demoEnd{}}},
		{"ipfw version", object, []any{versionReport{}}},
	}
}

// field is one name in what a command prints.
type field struct {
	path, kind, about string
	typ               reflect.Type
}

// fieldComments reads the comments of all struct fields, by type and field.
func fieldComments(t *testing.T, root string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, dir := range []string{"host", "rules", "cmd/ipfw"} {
		files, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", dir, len(files), err)
		}
		for _, name := range files {
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				spec, ok := n.(*ast.TypeSpec)
				if !ok {
					return true
				}
				st, ok := spec.Type.(*ast.StructType)
				if !ok {
					return true
				}
				for _, in := range st.Fields.List {
					text := in.Doc.Text() + " " + in.Comment.Text()
					for _, name := range in.Names {
						out[spec.Name.Name+"."+name.Name] = strings.Join(strings.Fields(text), " ")
					}
				}
				return true
			})
		}
	}
	return out
}

// fieldsOf gives the names that a type has in JSON, those of types within it behind
// a dot; [] stands for each element of a list, NAME for each key of a map.
func fieldsOf(typ reflect.Type, path string, about string, comments map[string]string) []field {
	optional := ""
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	marshals := typ.Implements(reflect.TypeFor[encoding.TextMarshaler]()) || reflect.PointerTo(typ).Implements(reflect.TypeFor[encoding.TextMarshaler]())
	leaf := func(kind string) []field { return []field{{path, kind + optional, about, typ}} }
	switch {
	case typ == reflect.TypeFor[time.Time]():
		return leaf("time")
	case typ == reflect.TypeFor[time.Duration]():
		return leaf("number")
	case marshals:
		return leaf("text")
	}
	switch typ.Kind() {
	case reflect.String:
		return leaf("text")
	case reflect.Bool:
		return leaf("true or false")
	case reflect.Slice, reflect.Array:
		return fieldsOf(typ.Elem(), path+"[]", about, comments)
	case reflect.Map:
		return fieldsOf(typ.Elem(), path+".NAME", about, comments)
	case reflect.Struct:
		var out []field
		if about != "" {
			out = append(out, field{path, "object", about, typ})
		}
		for i := range typ.NumField() {
			f := typ.Field(i)
			tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch {
			case f.Anonymous && tag == "":
				out = append(out, fieldsOf(f.Type, path, "", comments)...)
			case !f.IsExported() || tag == "-":
			case tag == "":
				out = append(out, field{path: path + "." + f.Name, kind: "NO NAME IN JSON"})
			default:
				out = append(out, fieldsOf(f.Type, strings.TrimPrefix(path+"."+tag, "."), comments[typ.Name()+"."+f.Name], comments)...)
			}
		}
		return out
	case reflect.Interface:
		return leaf("anything")
	}
	return leaf("number")
}

// TestJSONDocs holds docs/json.md to what the commands print: every name is there,
// and none that is not printed. go test ./cmd/ipfw -run JSONDocs -update writes its
// tables anew.
func TestJSONDocs(t *testing.T) {
	const name, mark = "../../docs/json.md", "<!-- from here on: go test ./cmd/ipfw -run JSONDocs -update -->\n"
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	comments := fieldComments(t, "../..")
	head, _, ok := strings.Cut(string(text), mark)
	if !ok {
		t.Fatalf("%s has no line %q", name, mark)
	}
	var b strings.Builder
	b.WriteString(head + mark)
	for _, f := range jsonForms() {
		fmt.Fprintf(&b, "\n## %s\n\nPrints %s.\n\n| name | value | what it is |\n|---|---|---|\n", f.command, f.form)
		for _, v := range f.types {
			for _, row := range fieldsOf(reflect.TypeOf(v), "", "", comments) {
				about := strings.ReplaceAll(row.about, "|", `\|`)
				fmt.Fprintf(&b, "| `%s` | %s | %s |\n", row.path, row.kind, strings.TrimSpace(about))
				if strings.Contains(row.kind, "NO NAME") {
					t.Errorf("%s: %s has no name in JSON", f.command, row.path)
				}
			}
		}
	}
	if *update {
		if err := os.WriteFile(name, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if b.String() != string(text) {
		t.Errorf("docs/json.md is not what the commands print; -update writes it:\n%s", b.String())
	}
}

// printed gives the paths in a value of JSON, as fieldsOf writes them.
func printed(v any, path string, out map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for k, in := range v {
			printed(in, strings.TrimPrefix(path+"."+k, "."), out)
		}
	case []any:
		for _, in := range v {
			printed(in, path+"[]", out)
		}
	case nil:
	default:
		out[path] = true
	}
}

// TestJSONFields: what each command prints with --json has no name that is not in
// its table, and is in the form that stands there.
func TestJSONFields(t *testing.T) {
	capture := testCapture(t)
	workdir(t)
	writeFile(t, "a.pcap", capture)
	busy().serve(t)
	known := map[string][]string{}
	for _, f := range jsonForms() {
		for _, v := range f.types {
			for _, row := range fieldsOf(reflect.TypeOf(v), "", "", nil) {
				known[f.command] = append(known[f.command], row.path)
			}
		}
	}
	fits := func(path string, patterns []string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool {
			if before, after, ok := strings.Cut(p, ".NAME"); ok {
				return strings.HasPrefix(path, before+".") && strings.HasSuffix(path, after)
			}
			return p == path
		})
	}
	live := func(args ...string) []string { return append(args, "--socket", "ipfw.sock") }
	tried := map[string]bool{}
	for _, row := range []struct {
		command string
		args    []string
	}{
		{"any command that fails", []string{"explain", "-c", "broken.hcl", web}}, {"any command that fails", []string{"explain", "-c", "office.hcl", "in"}},
		{"ipfw status", live("status")}, {"ipfw show", live("show")}, {"ipfw flows", live("flows")}, {"ipfw sas", live("sas")}, {"ipfw sas --wireshark-keys", live("sas", "--wireshark-keys")},
		{"ipfw ike list", live("ike", "list")}, {"ipfw ike list", live("ike")}, {"ipfw ike initiate, rekey, terminate", live("ike", "rekey", "south")}, {"ipfw events", live("events")},
		{"ipfw reload", live("reload")}, {"ipfw confirm", live("confirm")}, {"ipfw validate", []string{"validate", "broken.hcl"}}, {"ipfw validate", []string{"validate", "--print", "office.hcl"}},
		{"ipfw fmt", []string{"fmt", "--check", "ugly.hcl", "nosuch.hcl"}}, {"ipfw test", []string{"test", "failing.hcl"}},
		{"ipfw explain", []string{"explain", "-c", "office.hcl", "in tcp 203.0.113.9 -> 198.51.100.10:443"}}, {"ipfw explain", []string{"explain", "-c", "branch.hcl", branchOut}},
		{"ipfw replay", []string{"replay", "-c", "office.hcl", "--local", "198.51.100.10", "--top", "1", "a.pcap"}},
		{"ipfw replay --packets", []string{"replay", "-c", "office.hcl", "--local", "198.51.100.10", "--packets", "a.pcap"}},
		{"ipfw profile list", []string{"profile", "list"}}, {"ipfw version", []string{"version"}}, {"ipfw demo", []string{"demo"}},
	} {
		tried[row.command] = true
		r := &run{args: append(row.args, "--json")}
		if row.command == "ipfw demo" { // which wants root: e2e looks at a real one
			r.demoOf(sampleFlow(), true, false)
		} else {
			r.do()
		}
		if r.stdout.Len() == 0 {
			t.Errorf("ipfw %v: no answer: %s", row.args, r.stderr.String())
		}
		lines := 0
		for dec := json.NewDecoder(&r.stdout); dec.More(); lines++ {
			var v any
			if err := dec.Decode(&v); err != nil {
				t.Errorf("ipfw %v: %v", row.args, err)
				break
			}
			paths := map[string]bool{}
			if list, ok := v.([]any); ok {
				for _, in := range list {
					printed(in, "", paths)
				}
			} else {
				printed(v, "", paths)
			}
			for path := range paths {
				if !fits(path, known[row.command]) {
					t.Errorf("ipfw %v prints %s, which docs/json.md does not know", row.args, path)
				}
			}
		}
		for _, f := range jsonForms() {
			if f.command == row.command && !strings.Contains(f.form, "line") && lines != 1 {
				t.Errorf("ipfw %v prints %d values, want one", row.args, lines)
			}
		}
	}
	for _, f := range jsonForms() {
		if !tried[f.command] {
			t.Errorf("%s is not tried", f.command)
		}
	}
}
