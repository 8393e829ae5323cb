package rules

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What is no policy gets one clear sentence, soon, and nothing hangs: neither a
// pipe that nobody writes to nor a device that never ends.
func TestNoPolicy(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, text []byte) string {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(in(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(in(name), text, 0o600); err != nil {
			t.Fatal(err)
		}
		return in(name)
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(syscall.Mkfifo(in("pipe"), 0o600))
	write("pipes/a.hcl", []byte(shut))
	check(syscall.Mkfifo(in("pipes/b.hcl"), 0o600))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: in("sock")})
	check(err)
	defer l.Close()
	check(os.Symlink("loop", in("loop")))
	many := write("many/x", nil)
	for i := range maxEntries {
		check(os.Link(many, many+fmt.Sprint(i)))
	}
	comment := bytes.Repeat([]byte("# nothing but words, and many of them\n"), MaxPolicy/2/38+10)
	write("parts/a.hcl", append([]byte(shut), comment...))
	write("parts/b.hcl", comment)
	for _, c := range []struct{ path, want string }{
		{in("pipe"), "is not a file but a pipe"},
		{in("pipes"), "is not a file but a pipe"},
		{in("sock"), "is not a file but a socket"},
		{"/dev/zero", "is not a file but a device"},
		{in("loop"), "too many levels of symbolic links"},
		{in("many"), "more than 10000 entries"},
		{in("parts"), "at most 4 MiB in all"},
		{write("large.hcl", bytes.Repeat([]byte{'#'}, MaxPolicy+1)), "at most 4 MiB in all"},
		{write("nul.hcl", []byte("policy {\x00}\n")), "this is not text: byte 9 is 0x00"},
		{write("latin.hcl", []byte("# caf\xe9\n\x00")), "this is not text: byte 6 is 0xe9"},
	} {
		done := make(chan Diagnostics, 1)
		go func() {
			_, d := Load([]string{c.path}, LoadOptions{})
			done <- d
		}()
		select {
		case d := <-done:
			if text := fmt.Sprint(d.Err()); d.Len() != 1 || !strings.Contains(text, c.want) {
				t.Errorf("%s: %.300s; want %q alone", c.path, text, c.want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s hangs", c.path)
		}
	}
	// Standard input may be a pipe, and has the same bound.
	if _, d := Load([]string{"-"}, LoadOptions{Stdin: endless{}}); !strings.Contains(fmt.Sprint(d.Err()), "standard input is not read to its end") {
		t.Errorf("endless standard input: %v", d.Err())
	}
	secret := make(chan error, 1)
	go func() { _, err := ReadSecret(in("pipe")); secret <- err }()
	select {
	case err := <-secret:
		if err == nil || !strings.Contains(err.Error(), "a pipe") {
			t.Errorf("a pipe for a key file: %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("a pipe for a key file hangs")
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// Of many errors the first 20 are told, and how many more there are.
func TestManyErrors(t *testing.T) {
	text := shut + strings.Repeat("ruel \"x\" {}\n", 500)
	p, d := Load([]string{"-"}, LoadOptions{Stdin: strings.NewReader(text)})
	all := d.All()
	if p != nil || len(all) != maxErrors+1 || all[maxErrors].Summary != "And 480 more" || all[0].Line >= all[1].Line {
		t.Errorf("%d errors, the last %v", len(all), all[len(all)-1])
	}
	if _, d := Format([]byte(strings.Repeat("this is no policy\n", 500)), "x"); d.Len() == 0 || d.Len() > maxErrors+1 {
		t.Errorf("fmt tells %d errors", d.Len())
	}
}

// So it is with warnings, of each kind: rules that no packet can reach do not hide that
// another expects what never comes. What is printed does not grow with their number.
func TestManyWarnings(t *testing.T) {
	printed := func(n int) (list []Diagnostic, bytes int) {
		t.Helper()
		var b strings.Builder
		b.WriteString(shut)
		for i := range n {
			fmt.Fprintf(&b, "rule \"r%d\" {\n  action = \"bypass\"\n  direction = \"in\"\n  related_to = [\"r%d\"]\n}\n", i, (i+1)%n)
		}
		for i := range 3 {
			fmt.Fprintf(&b, "rule \"all%d\" {\n  action = \"discard\"\n  direction = \"in\"\n}\n", i)
		}
		p, d := Load([]string{"-"}, LoadOptions{Stdin: strings.NewReader(b.String())})
		if p == nil {
			t.Fatal(d.Err())
		}
		var out strings.Builder
		if err := d.WriteText(&out, 0, false); err != nil {
			t.Fatal(err)
		}
		if len(p.Warnings) != d.Len() {
			t.Errorf("%d warnings in the policy, %d diagnostics", len(p.Warnings), d.Len())
		}
		return p.Warnings, out.Len()
	}
	few, size := printed(100)
	many, same := printed(1000)
	last := many[len(many)-1]
	if len(few) != maxErrors+2+1 || len(many) != len(few) || last.Severity != "warning" || last.Summary != "And 980 more" ||
		!strings.Contains(last.Detail, `980 of "`+many[0].Summary+`"`) || same > size+size/10 {
		t.Errorf("of 100: %d warnings, %d bytes; of 1000: %d warnings, %d bytes, the last %v", len(few), size, len(many), same, last)
	}
	list := Shorten(append(many[:maxErrors:maxErrors], many[:5]...))
	if end := list[len(list)-1]; len(list) != maxErrors+1 || end.Summary != "And 5 more" {
		t.Errorf("Shorten: %d, the last %v", len(list), end)
	}
}
