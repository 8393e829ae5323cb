package rules

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/engine"
)

// A list file gives what the same addresses give that are written out, whichever
// way the two are put together.
func TestListFile(t *testing.T) {
	t.Chdir(t.TempDir())
	var want []string
	for i := range 300 {
		want = append(want, fmt.Sprintf("203.0.%d.0/24", i%256), fmt.Sprintf("2001:db8:%x::5", i))
	}
	if err := os.WriteFile("a.txt", []byte("\ufeff# a list\r\n"+strings.Join(want[:200], " # why\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("b.txt", []byte(strings.Join(want[200:], ",\r\n")), 0o644); err != nil {
		t.Fatal(err)
	}
	written := `"` + strings.Join(want, `", "`) + `"`
	for _, expr := range []string{"[" + written + "]", `[file("a.txt"), file("b.txt")]`, `[file("./a.txt"), [file("b.txt"), "203.0.0.0/24"], file("a.txt")]`,
		`concat(file("a.txt"), [file("b.txt")])`, `local.both`, `flatten([local.both, [["203.0.1.0/24"]]])`} {
		text := policyHead + "locals {\n  both = [file(\"a.txt\"), file(\"b.txt\")]\n}\n" + rulesFor(1, expr)
		p, d := Load([]string{"-"}, LoadOptions{Stdin: strings.NewReader(text)})
		if p == nil {
			t.Fatalf("%s: %v", expr, d.Err())
		}
		fixedPoint(t, p)
		e := p.DryRun(engine.Options{})
		for i := 0; i < 300; i += 97 {
			for _, in := range []string{"in udp 203.0.%d.9:9 -> 198.51.100.1:9 bad", "in udp [2001:db8:%x::5]:9 -> [2001:db8:ffff::1]:9 bad",
				"in udp 203.1.%d.9:9 -> 198.51.100.1:9 good", "in udp [2001:db8:%x::6]:9 -> [2001:db8:ffff::1]:9 good"} {
				line, is, _ := strings.Cut(fmt.Sprintf(in, i%256), " bad")
				bad := is == "" && strings.HasSuffix(in, " bad")
				line = strings.TrimSuffix(line, " good")
				o, err := runTrial(e, line)
				if err != nil {
					t.Fatal(err)
				}
				if got := o.Rule != nil && o.Rule.Name == "r0"; got != bad {
					t.Fatalf("%s: %s: %v, want %v", expr, line, got, bad)
				}
			}
		}
	}
}

// What is no list, and what is too much, is told; of the file nothing is quoted
// that is no address.
func TestListFileBounds(t *testing.T) {
	t.Chdir(t.TempDir())
	load := func(text string) string {
		p, d := Load([]string{"-"}, LoadOptions{Stdin: strings.NewReader(policyHead + text)})
		if p != nil {
			return ""
		}
		return d.Err().Error()
	}
	for _, tc := range []struct{ text, want string }{
		{strings.Repeat("::\n", MaxListed+1), "at most 2097152 addresses"},
		{strings.Repeat("#\n", MaxListBytes/2) + "\n", "at most 64 MiB in all"},
		{"deadbeefdeadbeef\n", "line 1: a line is one address"},
		{"hunter2 is the word\n192.0.2.1 hunter2\n", "lines 1, 2 cannot be read, the first because a line is one address"},
		{"192.0.2.9-192.0.2.1\n", "goes backwards"},
		{strings.Repeat("secret\n", 9), "lines 1, 2, 3, 4, 5 (and 4 more)"},
		{"fe80::1%eth0\n", "line 1"},
		{"\x00\xff\n", "line 1"},
		{strings.Repeat("1", 1<<20), "line 1"},
	} {
		if err := os.WriteFile("list", []byte(tc.text), 0o644); err != nil {
			t.Fatal(err)
		}
		got := load(rulesFor(1, `file("list")`))
		if !strings.Contains(got, tc.want) || strings.Contains(got, "hunter2") || strings.Contains(got, "deadbeef") || len(got) > 500 {
			t.Errorf("%.20q: %.500s", tc.text, got)
		}
	}
	// The same list in many rules is read once, and counted in each.
	if err := os.WriteFile("list", bytes.Repeat([]byte("192.0.2.1\n"), 100000), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := load(rulesFor(41, `file("list")`)); got != "" {
		t.Error(got)
	}
	if got := load(rulesFor(42, `[file("list"), "192.0.2.2"]`)); !strings.Contains(got, "All rules together may name 4194304 addresses") {
		t.Errorf("%.500s", got)
	}
}

// Whatever the file holds: no panic, and either ranges that each say what their
// line says, or an error.
func FuzzList(f *testing.F) {
	f.Add([]byte("# c\r\n192.0.2.7\n198.51.100.0/24 ; SBL1\n\n2001:db8::1-2001:db8::9,\n"))
	f.Add([]byte("\ufeff10.0.0.0/8"))
	f.Add([]byte("1.2.3.4/33\n::ffff:1.2.3.4\nfe80::1%x\n-\n/\n1.2.3.4-::"))
	f.Fuzz(func(t *testing.T, src []byte) {
		got, err := parseList(src, 1000)
		if err != nil {
			if got != nil {
				t.Fatal("a list beside an error")
			}
			return
		}
		// The slow twin: line by line, as a person reads.
		var want []engine.AddrRange
		for line := range strings.SplitSeq(strings.TrimPrefix(string(src), "\ufeff"), "\n") {
			line, _, _ = strings.Cut(line, "#")
			line, _, _ = strings.Cut(line, ";")
			line = strings.Trim(strings.TrimRight(strings.TrimSpace(line), ", \t"), " ")
			if line == "" {
				continue
			}
			r := engine.AddrRange{}
			if a, err := netip.ParseAddr(line); err == nil {
				r = engine.AddrRange{First: a, Last: a}
			} else if p, err := netip.ParsePrefix(line); err == nil {
				r = engine.AddrRange{First: p.Masked().Addr(), Last: lastAddr(p)}
			} else if a, b, ok := strings.Cut(line, "-"); ok {
				r = engine.AddrRange{First: netip.MustParseAddr(strings.TrimSpace(a)), Last: netip.MustParseAddr(strings.TrimSpace(b))}
			}
			want = append(want, r)
		}
		if len(got) != len(want) {
			t.Fatalf("%d ranges, want %d", len(got), len(want))
		}
		for i := range got {
			if got[i] != want[i] || !got[i].First.IsValid() || got[i].Last.Less(got[i].First) {
				t.Fatalf("%v, want %v", got[i], want[i])
			}
		}
	})
}

// A million addresses stay far below what the same would take as values of HCL.
func TestMillion(t *testing.T) {
	path := t.TempDir() + "/list"
	var b bytes.Buffer
	for i := range uint32(1000000) {
		x := i * 2654435761
		fmt.Fprintf(&b, "%d.%d.%d.%d\n", x>>24, x>>16&255, x>>8&255, x&255)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	text, kib, took := loadApart(t, policyHead+rulesFor(2, fmt.Sprintf("file(%q)", path)))
	t.Logf("%d MiB, %v", kib>>10, took)
	if strings.Contains(text, "error") || kib > 300<<10 {
		t.Errorf("a peak of %d MiB:\n%.500s", kib>>10, text)
	}
}
