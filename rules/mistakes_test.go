package rules

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// mistake is a kind of mistake in a policy. Each text says what, where, and what
// to do.
type mistake struct {
	kind string
	// text is the policy; in front of it stands a policy block, unless it has one
	// or bare says so.
	text string
	bare bool
	// files are the policy's files in place of text; paths are what is given to
	// Load in place of them.
	files map[string]string
	paths []string
}

const someRule = "rule \"web\" {\n  action    = \"bypass\"\n  direction = \"in\"\n  protocol  = \"tcp\"\n"

// mistakes are the kinds that people make, by what was tried on them.
func mistakes() []mistake {
	port := func(value string) string { return someRule + "  local_port = " + value + "\n}\n" }
	from := func(value string) string { return someRule + "  remote_address = " + value + "\n}\n" }
	return []mistake{
		{kind: "an argument misspelt", text: someRule + "  localport = 80\n}\n"},
		{kind: "four words misspelt, all told at once", text: "rule \"web\" {\n  action    = \"allow\"\n  direction = \"inbound\"\n  protocol  = \"tpc\"\n  remote_adress = \"192.0.2.1\"\n}\n"},
		{kind: "words of other firewalls", text: someRule + "  port   = 80\n  source = \"192.0.2.1\"\n}\n"},
		{kind: "an address that is none", text: from(`["192.0.2.256", "192.0.2.0/33", "files.example.org", "192.0.2.9-192.0.2.1"]`)},
		{kind: "a network with bits behind its prefix", text: from(`"192.0.2.5/24"`)},
		{kind: "a port that is none", text: port(`[70000, -1, "80-70"]`)},
		{kind: "a range of ports as iptables and ufw write it", text: port(`"80:90"`)},
		{kind: "ports in one string", text: port(`"80,443"`)},
		{kind: "a service misspelt", text: port(`"htpp"`)},
		{kind: "five elements of one line", text: port(`["htpp", "80:90", 70000, "https", "90-80", "x y"]`)},
		{kind: "a name used twice", text: port("80") + port("81")},
		{kind: "a name used twice, in two forms of Unicode", text: strings.ReplaceAll(port("80"), "web", "caf\u00e9") + strings.ReplaceAll(port("81"), "web", "cafe\u0301")},
		{kind: "a local defined twice, in two forms of Unicode", text: "locals {\n  caf\u00e9 = 80\n}\nlocals {\n  cafe\u0301 = 81\n}\n" + port("80")},
		{kind: "a rule that another takes everything from", text: strings.ReplaceAll(someRule, "web", "all") + "}\n" + port("80")},
		{kind: "a missing brace", text: someRule + "  local_port = 80\n\n" + strings.ReplaceAll(port("81"), "web", "db")},
		{kind: "a missing brace at the end", text: someRule + "  local_port = 80\n"},
		{kind: "no policy block", text: port("80"), bare: true},
		{kind: "no policy block in two files", files: map[string]string{"a.hcl": port("80"), "b.hcl": strings.ReplaceAll(port("81"), "web", "db")}},
		{kind: "a block that there is not, no name, two names", text: "rul \"web\" {\n}\nrule {\n}\nrule \"a\" \"b\" {\n}\n"},
		{kind: "an unknown local, a bare word, a variable of others", text: "locals {\n  admins = [\"192.0.2.1\"]\n}\n" + from("local.admin") + strings.ReplaceAll(from("admins"), "web", "b") + strings.ReplaceAll(from("var.admins"), "web", "c")},
		{kind: "locals in a circle", text: "locals {\n  a = local.b\n  b = local.c\n  c = local.a\n}\n"},
		{kind: "a file that is not there, an empty folder, a profile that there is not", paths: []string{"nosuch.hcl", "empty", "profile:nosuch", "profile:web-sever"}},
		{kind: "two policy blocks in a folder, and more", files: map[string]string{
			"a.hcl": "policy {\n  inbound  = \"discard\"\n  outbound = \"bypass\"\n}\n", "b.hcl": "policy {\n  inbound  = \"discard\"\n  outbound = \"bypass\"\n}\n" + port("99999")}},
		{kind: "an ipsec block that there is not, the first", text: "rule \"smb\" {\n  action    = \"protect\"\n  with      = \"lan\"\n  direction = \"in\"\n}\n"},
		{kind: "an ipsec block that there is not, beside others", text: "rule \"smb\" {\n  action    = \"protect\"\n  with      = \"office\"\n  direction = \"in\"\n}\nipsec \"lan\" {\n  ike = \"lan\"\n}\n"},
		{kind: "protect without with, and with without protect", text: "rule \"smb\" {\n  action    = \"protect\"\n  direction = \"in\"\n}\nrule \"web\" {\n  action    = \"bypass\"\n  with      = \"lan\"\n  direction = \"out\"\n}\n"},
		{kind: "a block in one line that goes on in the next", text: "rule \"web\" { action = \"bypass\"\n  direction = \"in\" }\n"},
		{kind: "a description in several lines", text: someRule + "  description = <<EOT\nthe web\nserver\nEOT\n}\n"},
		{kind: "a letter", text: strings.Repeat("Dear reader, this is a letter.\n", 100), bare: true},
		{kind: "a program", text: "\x7fELF\x02\x01\x01\x00", bare: true},
		{kind: "a huge file", text: "# " + strings.Repeat("x", MaxPolicy) + "\n", bare: true},
	}
}

// TestMistakes holds what each kind of mistake gets: one text, one file that shows
// all of them side by side. After a wanted change: go test ./rules -run Mistakes
// -update, and read the difference.
func TestMistakes(t *testing.T) {
	golden, err := filepath.Abs("testdata/mistakes.txt")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, m := range mistakes() {
		t.Chdir(t.TempDir())
		text := m.text
		if !m.bare && m.text != "" {
			text = "policy {\n  inbound  = \"discard\"\n  outbound = \"bypass\"\n}\n" + text
		}
		write := map[string]string{"policy.hcl": text}
		paths := []string{"policy.hcl"}
		if m.files != nil {
			write, paths = m.files, []string{"."}
		}
		if m.paths != nil {
			paths = m.paths
		}
		if err := os.Mkdir("empty", 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range write {
			if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		p, diags := Load(paths, LoadOptions{})
		if (p == nil) != diags.HasErrors() || diags.Len() == 0 {
			t.Errorf("%s: %d errors and warnings", m.kind, diags.Len())
		}
		fmt.Fprintf(&b, "==== %s\n", m.kind)
		if shown := m.text; len(shown) < 1000 && shown != "" {
			fmt.Fprintf(&b, "%s", strings.TrimRight(string(printable([]byte(shown))), "\n")+"\n")
		}
		fmt.Fprintf(&b, "----\n%s\n", strings.TrimRight(diagText(t, diags), "\n")+"\n")
	}
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
	}
}

// TestDecided holds what a policy means where a reader could think of two things.
func TestDecided(t *testing.T) {
	const head = "policy {\n  inbound  = \"discard\"\n  outbound = \"bypass\"\n}\n"
	load := func(text string) *Policy {
		t.Helper()
		p, diags := Load([]string{"-"}, LoadOptions{Stdin: strings.NewReader(text)})
		if p == nil {
			t.Fatal(diagText(t, diags))
		}
		return p
	}
	plain := string(load(head + someRule + "  local_port = 22\n}\n").Print())
	for what, text := range map[string]string{
		"a number is decimal, whatever zeros stand in front": head + someRule + "  local_port = 022\n}\n",
		"a number in quotes is, too":                         head + someRule + "  local_port = \"022\"\n}\n",
		"a line ends with LF, CR LF, or some with either":    strings.ReplaceAll(head, "\n", "\r\n") + someRule + "  local_port = 22\r\n}\n",
	} {
		if got := string(load(text).Print()); got != plain {
			t.Errorf("%s:\n%s\nwant\n%s", what, got, plain)
		}
	}
	// A name is the same in one code point and in two.
	const nfc, nfd = "caf\u00e9", "cafe\u0301"
	p := load(head + strings.ReplaceAll(someRule, "web", nfd) + "  local_port = 22\n}\ntest \"t\" {\n  expect \"bypass\" {\n    packet = \"in tcp 192.0.2.1 -> 192.0.2.2:22\"\n    rule   = \"" + nfc + "\"\n  }\n}\n")
	if r := p.RunTests(); len(r) != 1 || !r[0].Pass {
		t.Errorf("%+v", r)
	}
	of := func(name, used string) string {
		return head + "locals {\n  " + name + " = { " + name + " = [22] }\n}\n" + someRule + "  local_port = [for " + name + " in local." + used + "." + used + " : " + used + "]\n}\n"
	}
	for _, text := range []string{of(nfc, nfc), of(nfc, nfd), of(nfd, nfc), of(nfd, nfd)} {
		if got := string(load(text).Print()); got != plain {
			t.Errorf("%s:\n%s\nwant\n%s", text, got, plain)
		}
	}
}
