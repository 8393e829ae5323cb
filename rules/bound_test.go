package rules

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

const policyHead = "policy {\n  inbound  = \"discard\"\n  outbound = \"bypass\"\n}\n"

// doubled is a chain of locals, each two of the one before, which is @.
func doubled(first, next string, n int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "locals {\n  a0 = %s\n", first)
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&b, "  a%d = %s\n", i, strings.ReplaceAll(next, "@", fmt.Sprintf("local.a%d", i-1)))
	}
	return b.String() + "}\n"
}

// manyLocals are locals that all do the same.
func manyLocals(n int, expr string) string {
	var b strings.Builder
	b.WriteString("locals {\n")
	for i := range n {
		fmt.Fprintf(&b, "  m%d = %s\n", i, expr)
	}
	return b.String() + "}\n"
}

// tooMuch are policies that would make more than a machine has, in memory or time.
var tooMuch = []struct{ name, text, want string }{
	{"a string that doubles", doubled(`"xxxxxxxx"`, `"${@}${@}"`, 40), "16 MiB of text"},
	{"a string that doubles in parentheses", doubled(`"xxxxxxxx"`, `"${(@)}${(@)}"`, 40), "16 MiB of text"},
	{"a list that doubles", doubled(`["x"]`, `[@, @]`, 60), "262,144 elements"},
	{"a list of nothing that doubles", doubled(`[]`, `[@, @]`, 60), "262,144 elements"},
	{"an object that doubles", doubled(`{ x = 1 }`, `{ a = @, b = @ }`, 60), "262,144 elements"},
	{"concat", doubled(`["x"]`, `concat(@, @)`, 60), "elements"},
	{"flatten", doubled(`["x"]`, `flatten([@, @])`, 60), "elements"},
	{"join", doubled(`"xxxxxxxx"`, `join("", [@, @])`, 60), "16 MiB of text"},
	{"join with a long separator", doubled(`"x"`, `join(@, [for i in range(1000) : "x"])`, 20), "16 MiB of text"},
	{"replace", doubled(`"xx"`, `replace(@, "x", @)`, 20), "16 MiB of text"},
	{"upper again and again", doubled(`"xxxxxxxx"`, `"${upper(@)}${lower(@)}"`, 60), "16 MiB of text"},
	{"split into letters", doubled(`"xxxxxxxx"`, `"${@}${@}"`, 19) + "locals {\n  s = split(\"\", local.a19)\n}\n", "elements"},
	{"for in for in for", "locals {\n  x = [for a in range(1000) : [for b in range(1000) : [for c in range(1000) : \"${a}.${b}.${c}\"]]]\n}\n", ""},
	{"for in for, nothing kept", "locals {\n  r = range(1000)\n  x = [for a in local.r : [for b in local.r : [for c in local.r : c if false]] if false == [for d in local.r : [for e in local.r : e]]]\n}\n", ""},
	{"for with a condition that is never true", "locals {\n  r = range(1000)\n  x = [for a in local.r : 1 if length([for b in local.r : b if length([for c in local.r : c if false]) > 0]) > 0]\n}\n", "too many steps"},
	{"for that makes an object", "locals {\n  r = range(1000)\n  x = { for a in local.r : a => { for b in local.r : b => a } }\n}\n", ""},
	{"for that groups", "locals {\n  r = range(1000)\n  x = { for a in [for b in local.r : [for c in local.r : c]] : \"k\" => a... }\n}\n", ""},
	{"for in a text", "locals {\n  r = range(1000)\n  x = \"%{ for a in local.r }%{ for b in local.r }some words that are long%{ endfor }%{ endfor }\"\n}\n", "16 MiB of text"},
	{"a long text in a for", "locals {\n  r = range(1000)\n  x = [for a in local.r : [for b in local.r : \"" + strings.Repeat("x", 10000) + "\"]]\n}\n", "16 MiB of text"},
	{"a long list in a for", "locals {\n  r = range(1000)\n  x = [for a in local.r : [for b in local.r : [" + strings.Repeat("1,", 1000) + "]]]\n}\n", ""},
	{"numbers in a for", "locals {\n  r = range(1000)\n  x = [for a in local.r : [for b in local.r : a * b + 1]]\n}\n", ""},
	{"a splat in a splat", doubled(`["x"]`, `[@, @]`, 17) + manyLocals(400, "local.a17[*][*]"), ""},
	{"lists of two types", doubled(`["x"]`, `[@, @]`, 12) + "locals {\n  r = range(1000)\n  x = [for a in local.r : true ? local.a12 : [[\"y\"]]]\n}\n", ""},
	{"sets", doubled(`"xxxxxxxx"`, `"${@}${@}"`, 14) + "locals {\n  x = [for a in range(100) : toset([for i, c in split(\"x\", local.a14) : \"${i}\"])]\n}\n", ""},
	{"one list against another", doubled(`"xxxxxxxx"`, `"${@}${@}"`, 13) + "locals {\n  l = split(\"\", local.a13)\n  x = [for a in local.l : a if contains(local.l, \"y\")]\n}\n", "too many steps"},
	{"equal lists, again and again", doubled(`["x"]`, `[@, @]`, 15) + "locals {\n  x = [for a in range(1000) : [for b in range(1000) : b if local.a15 == local.a15]]\n}\n", ""},
	{"lists that differ", doubled(`"xxxxxxxx"`, `"${@}${@}"`, 12) + "locals {\n  x = distinct([for i, c in split(\"\", local.a12) : \"${i}\"])\n}\n", ""},
	{"mistakes in a for", "locals {\n  x = [for a in range(1000) : [for b in range(1000) : b.nothing]]\n}\n", "attribute"},
	{"functions that fail in a for", "locals {\n  x = [for a in range(1000) : [for b in range(1000) : element([], b)]]\n}\n", "element"},
	{"a number with many digits", "locals {\n  x = \"${1e400}\"\n}\n", "number"},
	{"a number that is very small", "locals {\n  x = \"${1e-400}\"\n}\n", "number"},
	{"a number that squares itself", doubled(`10`, `@ * @`, 60) + "locals {\n  x = \"${local.a60}\"\n}\n", "number"},
	{"a number out of a text", "locals {\n  x = \"${tonumber(\"1e400\") + 1}\"\n}\n", "number"},
	{"a chain of locals", doubled(`"x"`, `@`, 20000), "more than 512 deep"},
	{"a list used by many rules", doubled(`["192.0.2.1"]`, `concat(@, @)`, 15) + rulesFor(2000, "local.a15"), "million elements"},
	{"the same in a list", doubled(`["192.0.2.1"]`, `concat(@, @)`, 15) + rulesFor(2000, "[local.a15, local.a15]"), "million elements"},
	{"an address in a for", "locals {\n  r = range(1000)\n  x = [for a in local.r : [for b in local.r : cidrhost(\"10.0.0.0/8\", a + b)]]\n}\n", "16 MiB of text"},
	{"an address in a long list", doubled(`["192.0.2.1"]`, `concat(@, @)`, 14) + "locals {\n  r = range(1000)\n  x = [for a in local.r : a if cidrcontains(local.a14, \"198.51.100.1\")]\n}\n", "too many steps"},
	{"a long list in itself", doubled(`["192.0.2.0/25", "192.0.2.128/25"]`, `concat(@, @)`, 14) + "locals {\n  r = range(1000)\n  x = [for a in local.r : a if cidrcontains(local.a14, local.a14)]\n}\n", "too many steps"},
	{"tries in a for", "locals {\n  r = range(1000)\n  x = [for a in local.r : [for b in local.r : try(b.x, cidrhost(\"x\", b), b.y, 1)]]\n}\n", "too many steps"},
	{"unknown locals", manyLocals(20000, "local.nothing_of_that_name"), "Unknown local"},
	{"many locals", manyLocals(20000, "1"), ""},
}

// rulesFor all have one address argument.
func rulesFor(n int, expr string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "rule \"r%d\" {\n  action = \"discard\"\n  direction = \"in\"\n  remote_address = %s\n}\n", i, expr)
	}
	return b.String()
}

// Whatever a policy asks for, reading it takes neither much memory nor long. A
// process of its own loads each, so that the peak is its own.
func TestTooMuch(t *testing.T) {
	if path := os.Getenv("IPFW_LOAD"); path != "" {
		loadAndMeasure(path)
		return
	}
	for _, tc := range tooMuch {
		t.Run(tc.name, func(t *testing.T) {
			text, kib, took := loadApart(t, policyHead+tc.text)
			t.Logf("%d MiB, %v", kib>>10, took)
			if kib > 160<<10 {
				t.Errorf("a peak of %d MiB", kib>>10)
			}
			if took > 20*time.Second {
				t.Errorf("took %v", took)
			}
			if tc.want != "" && !strings.Contains(text, tc.want) {
				t.Errorf("want %q in:\n%.500s", tc.want, text)
			}
			if strings.Contains(text, "error") && !strings.Contains(text, "policy.hcl:") {
				t.Errorf("no line is named:\n%.500s", text)
			}
		})
	}
}

// loadApart loads a policy in a process of its own, and gives what it said, its
// peak of resident memory in KiB, and its own processor time.
func loadApart(t *testing.T, policy string) (text string, kib int, took time.Duration) {
	t.Helper()
	path := t.TempDir() + "/policy.hcl"
	if err := os.WriteFile(path, []byte(policy), 0o644); err != nil {
		t.Fatal(err)
	}
	// The limit ends what hangs: what is bounded is processor time.
	c := exec.Command(os.Args[0], "-test.run=^TestTooMuch$", "-test.timeout=20m")
	c.Env = append(os.Environ(), "IPFW_LOAD="+path)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%.2000s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ = strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(v), " kB"))
		}
	}
	if kib == 0 {
		t.Fatalf("no figure:\n%.2000s", out)
	}
	return string(out), kib, c.ProcessState.UserTime() + c.ProcessState.SystemTime()
}

func loadAndMeasure(path string) {
	_, d := Load([]string{path}, LoadOptions{})
	for i, v := range d.All() {
		if i < 20 {
			fmt.Println(v)
		}
	}
	status, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "VmHWM:") {
			fmt.Print(line)
		}
	}
}

// What people write takes a small part of what there is: 80,000 addresses, put
// together, made anew, and used by several rules.
func TestHonestLists(t *testing.T) {
	var b strings.Builder
	b.WriteString(policyHead + "locals {\n  bad = [\n")
	for i := range 80000 {
		fmt.Fprintf(&b, "    \"10.%d.%d.%d/31\",\n", i>>15&255, i>>7&255, i<<1&255)
	}
	b.WriteString("  ]\n  all = concat(local.bad, [\"192.0.2.1\"])\n  each = [for a in local.bad : a if a != \"192.0.2.1\"]\n}\n")
	b.WriteString(rulesFor(3, "local.all") + strings.ReplaceAll(rulesFor(2, "local.each"), `rule "r`, `rule "s`))
	path := t.TempDir() + "/policy.hcl"
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	p, d := Load([]string{path}, LoadOptions{})
	if p == nil {
		t.Fatal(d.Err())
	}
	for _, r := range p.Engine.Rules {
		if want := map[byte]int{'r': 80001, 's': 80000}[r.Name[0]]; !r.Essential && len(r.Remote) != want {
			t.Errorf("rule %s has %d addresses, want %d", r.Name, len(r.Remote), want)
		}
	}
}
