package rules

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what the tests get into testdata")

// place that stands for the absolute folder of a golden file.
const here = "/HERE"

// diagText is what a user sees.
func diagText(t testing.TB, d Diagnostics) string {
	t.Helper()
	var b bytes.Buffer
	if err := d.WriteText(&b, 0, false); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// workdir copies a golden file into a folder of its own, next to key files
// with modes that a repository cannot keep, and makes that folder current.
func workdir(t *testing.T, file string) {
	t.Helper()
	dir := t.TempDir()
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, mode os.FileMode, text string) {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(name, mode); err != nil { // whatever the umask is
			t.Fatal(err)
		}
	}
	write(filepath.Base(file), 0o644, string(src))
	write("lists/drop.txt", 0o644, "# who attacks us\r\n192.0.2.7\n198.51.100.0/24 ; SBL1\n\n2001:db8::1-2001:db8::9,\n192.0.2.7\n")
	write("lists/none.txt", 0o644, "# nobody\n")
	write("lists/wrong.txt", 0o644, "192.0.2.1\n192.0.2.1/24\nroot:$6$"+hexKey(8)+":19000:0:::\n")
	write("keys/public.pem", 0o644, "only looked at for being there\n")
	write("keys/private.key", 0o600, "only looked at for being there\n")
	write("keys/open.key", 0o644, "only looked at for being there\n")
	write("keys/peers/alice.pub", 0o644, "only looked at for being there\n")
	sa := "# both directions\nencryption_in = 0x" + hexKey(32) + "\nencryption_out = " + hexKey(32) + "\n"
	ah := "integrity_in=" + hexKey(32) + "\nintegrity_out = " + hexKey(32) + "\n"
	write("keys/esp.keys", 0o600, sa+"\n"+ah)
	write("keys/ah.keys", 0o600, ah)
	write("keys/group.keys", 0o640, sa+ah)
	write("keys/short.keys", 0o600, strings.Replace(sa, "= "+hexKey(32), "= "+hexKey(16), 1)+ah)
	t.Chdir(dir)
}

// hexKey is n bytes that no diagnostic may ever show.
func hexKey(n int) string { return strings.Repeat("5e", n) }

// plain takes the folder of the test out of a text, and looks for keys in it.
func plain(t testing.TB, s string) string {
	t.Helper()
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(s, hexKey(4)) {
		t.Errorf("a key is shown:\n%s", s)
	}
	return strings.ReplaceAll(s, wd, here)
}

// golden compares got with the file, or writes the file.
func golden(t *testing.T, file, got string) {
	t.Helper()
	got = plain(t, got)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; got:\n%s\nwant:\n%s", file, got, want)
	}
}

// cases gives the files, absolute.
func cases(t *testing.T, pattern string) []string {
	t.Helper()
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(wd, pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files %s (%v)", pattern, err)
	}
	return files
}

// In testdata/good, NAME.hcl prints as NAME.ok, which prints as itself.
func TestGood(t *testing.T) {
	for _, f := range cases(t, "testdata/good/*.hcl") {
		t.Run(filepath.Base(f), func(t *testing.T) {
			workdir(t, f)
			p, d := Load([]string{filepath.Base(f)}, LoadOptions{CheckFiles: true})
			if p == nil || d.Len() > 0 {
				t.Fatalf("not clean:\n%s", diagText(t, d))
			}
			golden(t, strings.TrimSuffix(f, ".hcl")+".ok", string(p.Print()))
			fixedPoint(t, p)
		})
	}
}

// fixedPoint prints, parses and prints again.
func fixedPoint(t testing.TB, p *Policy) {
	t.Helper()
	first := p.Print()
	again, d := Load([]string{"-"}, LoadOptions{Stdin: bytes.NewReader(first)})
	if again == nil {
		t.Fatalf("what Print wrote does not load:\n%s\n%s", diagText(t, d), first)
	}
	if second := again.Print(); !bytes.Equal(first, second) {
		t.Fatalf("printing is no fixed point; first:\n%s\nsecond:\n%s", first, second)
	}
	if out, _ := Format(first, "printed"); !bytes.Equal(first, out) {
		t.Fatalf("what Print wrote is not formatted:\n%s", first)
	}
}

// In testdata/bad and testdata/warn, NAME.hcl gives exactly the text NAME.err:
// errors and no policy in the one, warnings and a policy in the other.
func TestDiagnostics(t *testing.T) {
	for _, f := range append(cases(t, "testdata/bad/*.hcl"), cases(t, "testdata/warn/*.hcl")...) {
		t.Run(filepath.Base(f), func(t *testing.T) {
			workdir(t, f)
			p, d := Load([]string{filepath.Base(f)}, LoadOptions{})
			if bad := strings.Contains(f, "/bad/"); bad != d.HasErrors() || bad != (p == nil) || d.Len() == 0 {
				t.Fatalf("errors: %v, policy: %v, diagnostics: %d", d.HasErrors(), p != nil, d.Len())
			}
			if p != nil {
				fixedPoint(t, p)
				if len(p.Warnings) != d.Len() {
					t.Errorf("%d warnings in the policy, %d diagnostics", len(p.Warnings), d.Len())
				}
			}
			golden(t, strings.TrimSuffix(f, ".hcl")+".err", diagText(t, d))
		})
	}
}
