package rules

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/engine"
)

// load reads a policy from text and wants it without errors.
func load(t testing.TB, text string) *Policy {
	t.Helper()
	p, d := Load([]string{"-"}, LoadOptions{Stdin: strings.NewReader(text)})
	if p == nil {
		t.Fatal(diagText(t, d))
	}
	return p
}

const shut = "policy {\n  inbound  = \"discard\"\n  outbound = \"bypass\"\n}\n"

// Every profile is clean, formatted, a fixed point of Print, and passes the
// tests that it holds, of which there are some for every verdict it gives.
func TestProfiles(t *testing.T) {
	names := Profiles()
	want := "bastion database deny-web file-client file-server two-offices vpn-client vpn-gateway web-server workstation"
	if got := strings.Join(names, " "); got != want {
		t.Fatalf("profiles: %s; want %s", got, want)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			p, d := Load([]string{"profile:" + name}, LoadOptions{})
			if p == nil || d.Len() > 0 {
				t.Fatalf("not clean:\n%s", diagText(t, d))
			}
			fixedPoint(t, p)
			src, err := Profile(name)
			if err != nil {
				t.Fatal(err)
			}
			if out, _ := Format(src, name); !bytes.Equal(out, src) {
				t.Errorf("not formatted; ipfw fmt gives:\n%s", out)
			}
			tested := map[string]bool{}
			results := p.RunTests()
			for _, r := range results {
				tested[r.GotRule] = true
				if !r.Pass {
					t.Errorf("%s: %s: %s", r.Place, r.Packet, r.Why)
				}
			}
			if len(results) < 8 {
				t.Errorf("%d packets are few for a profile", len(results))
			}
			for _, r := range p.Engine.Rules {
				if !r.Essential && !tested[r.Name] {
					t.Errorf("no test reaches rule %q", r.Name)
				}
			}
		})
	}
}

func TestSources(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// Files in name order, folders and hidden files left out, locals of one
	// file seen in the other.
	write("20-b.hcl", "rule \"b\" {\n  action = \"discard\"\n  direction = \"in\"\n  remote_address = local.lan\n}\n")
	write("10-a.hcl", shut+"rule \"a\" {\n  action = \"bypass\"\n  direction = \"in\"\n  remote_address = \"192.0.2.1\"\n}\n")
	write("30.hcl", "locals {\n  lan = \"10.0.0.0/8\"\n}\n")
	write(".hidden.hcl", "not a policy")
	write("README.txt", "not a policy")
	if err := os.Mkdir(filepath.Join(dir, "sub.hcl"), 0o755); err != nil {
		t.Fatal(err)
	}
	p, d := Load([]string{dir}, LoadOptions{})
	if p == nil {
		t.Fatal(diagText(t, d))
	}
	var names []string
	for _, r := range p.Engine.Rules {
		if !r.Essential {
			names = append(names, r.Name+" "+filepath.Base(r.Place))
		}
	}
	if got := strings.Join(names, ", "); got != "a 10-a.hcl:5, b 20-b.hcl:1" {
		t.Errorf("rules: %s", got)
	}
	// A folder, and more in another file.
	write("README.txt", "rule \"c\" {\n  action = \"bypass\"\n  direction = \"out\"\n}\n")
	if p, d = Load([]string{dir, filepath.Join(dir, "README.txt")}, LoadOptions{}); p == nil || p.rules[len(p.rules)-1].Name != "c" {
		t.Errorf("folder and file: %s", diagText(t, d))
	}

	empty := t.TempDir()
	for _, tt := range []struct {
		paths []string
		want  string
	}{
		{nil, "No path was given"},
		{[]string{filepath.Join(dir, "nowhere.hcl")}, "does not exist: name a file, a folder, - or profile:NAME"},
		{[]string{empty}, "has no *.hcl file"},
		{[]string{"-"}, "there is no standard input"},
		{[]string{"profile:web-sever"}, `did you mean "web-server"?`},
		{[]string{"profile:../rules/web-server"}, "there is no profile"},
		{[]string{dir, filepath.Join(dir, "10-a.hcl")}, "is named twice"},
	} {
		p, d := Load(tt.paths, LoadOptions{})
		if p != nil || !d.HasErrors() || !strings.Contains(d.Err().Error(), tt.want) {
			t.Errorf("Load(%q): %v; want %q", tt.paths, d.Err(), tt.want)
		}
	}
	// One unreadable path keeps everything from loading, and the rest is
	// checked all the same.
	p, d = Load([]string{dir, "nowhere.hcl", "-"}, LoadOptions{Stdin: strings.NewReader("ruel \"x\" {}\n")})
	if err := fmt.Sprint(d.Err()); p != nil || !strings.Contains(err, "nowhere.hcl") || !strings.Contains(err, "ruel") {
		t.Errorf("got %v", err)
	}
}

func TestDiagnosticsForPrograms(t *testing.T) {
	_, d := Load([]string{"-"}, LoadOptions{Stdin: strings.NewReader(shut + "rule \"a\" {\n  action = \"bypas\"\n  direction = \"in\"\n}\n")})
	b, err := json.Marshal(d)
	want := `[{"severity":"error","summary":"Wrong value","detail":"action is discard, bypass or protect, not \"bypas\"; did you mean \"bypass\"?",` +
		`"file":"\u003cstdin\u003e","line":6,"column":12,"end_line":6,"end_column":19}]`
	if err != nil || string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
	if got := d.Err().Error(); got != `<stdin>:6:12: error: Wrong value: action is discard, bypass or protect, not "bypas"; did you mean "bypass"?` {
		t.Errorf("got %s", got)
	}
	if (Diagnostics{}).Err() != nil || (Diagnostics{}).HasErrors() {
		t.Error("no diagnostics are an error")
	}
}

// Places point into the text as it was written, also behind a block that was
// unfolded.
func TestPlacesBehindOneLineBlocks(t *testing.T) {
	text := shut + "rule \"a\" { action = \"bypass\", direction = \"in\", protocol = \"tpc\" }\n  rule \"b\" { action = \"bypass\", direction = \"inn\", log = true }\n"
	_, d := Load([]string{"-"}, LoadOptions{Stdin: strings.NewReader(text)})
	var at []string
	for _, v := range d.All() {
		line := strings.Split(text, "\n")[v.Line-1]
		at = append(at, line[v.Column-1:v.EndCol-1])
	}
	if got := strings.Join(at, " "); got != `"tpc" "inn"` {
		t.Errorf("places: %s", got)
	}
}

func TestFormat(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", ""},
		{"policy {\ninbound=\"discard\" # why\n  outbound   = \"bypass\"}", "policy {\n  inbound  = \"discard\" # why\n  outbound = \"bypass\"\n}\n"},
		{"rule \"a\" {\n  limit { rate = \"1/second\", burst=2 }\n}\n", "rule \"a\" {\n  limit {\n    rate  = \"1/second\"\n    burst = 2\n  }\n}\n"},
		{"locals {\n  a = [1,2]\n  b = { c = 1, d = 2 }\n}\n", "locals {\n  a = [1, 2]\n  b = { c = 1, d = 2 }\n}\n"},
	} {
		got, d := Format([]byte(tt.in), "x.hcl")
		if string(got) != tt.want && d.Len() == 0 {
			t.Errorf("Format(%q) = %q, want %q", tt.in, got, tt.want)
		}
		if d.Len() > 0 && !strings.Contains(tt.in, "\"}") {
			t.Errorf("Format(%q): %v", tt.in, d.Err())
		}
		if again, _ := Format(got, "x.hcl"); !bytes.Equal(got, again) {
			t.Errorf("Format is no fixed point on %q", got)
		}
	}
	if out, d := Format([]byte("policy {"), "x.hcl"); out != nil || !d.HasErrors() || !strings.HasPrefix(d.Err().Error(), "x.hcl:1:") {
		t.Errorf("unclosed block: %q, %v", out, d.Err())
	}
}

func TestTestBlocks(t *testing.T) {
	p := load(t, shut+`
rule "web" {
  action     = "bypass"
  direction  = "in"
  protocol   = "tcp"
  local_port = 443
}
rule "other" {
  action    = "discard"
  direction = "in"
  protocol  = "tcp"
}
test "t" {
  expect "bypass" {
    packets = ["in tcp 203.0.113.9:1 -> 192.0.2.1:443", "in tcp 203.0.113.9:1 -> 192.0.2.1:80"]
    rule    = "web"
  }
  expect "discard" {
    packet = "in tcp 203.0.113.9:1 -> 192.0.2.1:80"
    rule   = "web"
  }
  expect "bypass" { packet = "in tcp 203.0.113.9:443 -> 192.0.2.1:5000 established" }
  expect "bypass" { packet = "in udp 203.0.113.9:443 -> 192.0.2.1:5000" }
}
`)
	var got []string
	for _, r := range p.RunTests() {
		got = append(got, fmt.Sprintf("%s %v %s", r.Place, r.Pass, r.Why))
	}
	want := []string{
		`<stdin>:18 true `,
		`<stdin>:18 false expected bypass, but got discard by rule "other" (<stdin>:12) (rule)`,
		`<stdin>:22 false expected discard by rule "web", but got it by rule "other" (<stdin>:12) (rule)`,
		`<stdin>:26 true `,
		`<stdin>:27 false expected bypass, but got discard by (inbound default)`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Essentials stand before a rule that discards everything.
func TestEssentials(t *testing.T) {
	text := shut + `
rule "nothing" {
  action    = "discard"
  direction = "both"
}
ipsec "lan" {
  mode            = "tunnel"
  ike             = "peers"
}
ike "peers" {
  remote_endpoint = "203.0.113.0/24"
  psk_file        = "nowhere"
}
`
	with, without := load(t, text), load(t, strings.Replace(text, "policy {", "policy {\nessentials = false", 1))
	if len(without.Engine.Rules) != 1 {
		t.Errorf("%d rules without essentials", len(without.Engine.Rules))
	}
	for _, tt := range []struct {
		want string
		line string
	}{
		{"bypass", "in tcp 192.0.2.1:9 -> 192.0.2.1:10 on lo"},
		{"bypass", "out udp [::1]:9 -> [::1]:10 on lo"},
		{"discard", "in tcp 127.0.0.1:9 -> 192.0.2.1:10 on eth0"},
		{"bypass", "in icmpv6 neighbor-solicitation fe80::1 -> ff02::1:ff00:2"},
		{"bypass", "out icmpv6 neighbor-advertisement fe80::2 -> fe80::1"},
		{"bypass", "out icmpv6 router-solicitation fe80::2 -> ff02::2"},
		{"bypass", "in icmpv6 router-advertisement fe80::1 -> ff02::1"},
		{"discard", "out icmpv6 router-advertisement fe80::1 -> ff02::1"},
		{"discard", "in icmpv6 router-solicitation fe80::1 -> ff02::2"},
		{"discard", "in icmpv6 redirect fe80::1 -> 2001:db8::1"},
		{"bypass", "out icmpv6 143 fe80::2 -> ff02::16"},
		{"bypass", "in icmpv6 130 fe80::1 -> ff02::1"},
		{"discard", "in icmpv6 echo-request 2001:db8::2 -> 2001:db8::1"},
		{"discard", "in icmp echo-request 203.0.113.9 -> 192.0.2.1"},
		{"bypass", "out udp 0.0.0.0:68 -> 255.255.255.255:67"},
		{"bypass", "in udp 192.0.2.254:67 -> 255.255.255.255:68"},
		{"bypass", "in udp 192.0.2.253:40000 -> 192.0.2.7:68"},
		{"discard", "in udp 192.0.2.9:68 -> 192.0.2.1:67"},
		{"discard", "out udp 192.0.2.7:68 -> 192.0.2.254:40000"},
		{"bypass", "out udp [fe80::2]:546 -> [ff02::1:2]:547"},
		{"bypass", "in udp [fe80::1]:547 -> [fe80::2]:546"},
		{"bypass", "in udp [fe80::1]:40000 -> [fe80::2]:546"},
		{"bypass", "in udp [2001:db8::1]:40000 -> [fe80::2]:546"},
		{"discard", "in udp [2001:db8::1]:547 -> [2001:db8::2]:546"},
		{"discard", "out udp [fe80::2]:546 -> [fe80::1]:40000"},
		{"bypass", "in igmp 192.0.2.254 -> 224.0.0.1"},
		{"bypass", "in igmp 0.0.0.0 -> 239.1.1.1"},
		{"bypass", "out igmp 192.0.2.1 -> 224.0.0.22"},
		{"bypass", "out igmp 192.0.2.1 -> 239.1.1.1"},
		{"discard", "in igmp 192.0.2.254 -> 192.0.2.1"},
		{"discard", "out igmp 192.0.2.1 -> 192.0.2.254"},
		{"discard", "forward igmp 192.0.2.254 -> 224.0.0.1"},
		{"bypass", "in udp 203.0.113.7:500 -> 192.0.2.1:500"},
		{"bypass", "in udp 203.0.113.7:61000 -> 192.0.2.1:4500"},
		{"bypass", "out udp 192.0.2.1:4500 -> 203.0.113.7:4500"},
		{"discard", "in udp 198.51.100.7:500 -> 192.0.2.1:500"},
		{"bypass", "in esp 203.0.113.7 -> 192.0.2.1 spi 0x1001"},
		{"bypass", "out esp 192.0.2.1 -> 203.0.113.7 spi 0x1001"},
		{"discard", "in esp 198.51.100.7 -> 192.0.2.1 spi 0x1001"},
		{"discard", "in ah 203.0.113.7 -> 192.0.2.1 spi 0x1001"},
	} {
		for _, p := range []*Policy{with, without} {
			o, err := runTrial(engine.New(&p.Engine, engine.Options{}), tt.line)
			if err != nil {
				t.Fatal(err)
			}
			want := tt.want
			if p == without && !strings.HasSuffix(tt.line, " on lo") { // which passes before policy is asked
				want = "discard"
			}
			if o.Verdict.String() != want {
				t.Errorf("%s: %s (%s), want %s; essentials %v", tt.line, o.Verdict, o.Result.Reason, want, p.Settings.Essentials)
			}
		}
	}
}
