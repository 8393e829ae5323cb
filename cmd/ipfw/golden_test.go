package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/host"
)

var update = flag.Bool("update", false, "write the golden files anew")

// run is one command line in an app of its own.
type run struct {
	args           []string
	stdin          []byte
	env            map[string]string
	tty            bool
	user           int // the effective user; 0: root
	left           host.Left
	stdout, stderr bytes.Buffer
	exit           int
}

func (r *run) do() *run {
	clock := time.Unix(1700000000, 0)
	a := &app{
		stdin: bytes.NewReader(r.stdin), stdout: &r.stdout, stderr: &r.stderr,
		stdoutTTY: r.tty, stderrTTY: r.tty, euid: r.user,
		getenv: func(k string) string { return r.env[k] },
		left:   func() (host.Left, error) { return r.left, nil },
		now: func() time.Time {
			clock = clock.Add(100 * time.Millisecond)
			return clock
		},
	}
	r.exit = a.executeContext(context.Background(), r.args)
	return r
}

func ipfw(args ...string) *run { return (&run{args: args}).do() }

// workdir copies the policies of testdata into a folder where a test may
// write, and goes there.
func workdir(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/policies")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "peers.psk"), []byte("correct horse battery staple\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	keys := fmt.Sprintf("encryption_in = %[1]s\nintegrity_in = %[2]s\nencryption_out = %[1]s\nintegrity_out = %[2]s\n",
		strings.Repeat("1a", 32), strings.Repeat("2b", 32))
	ah := strings.Join(slices.DeleteFunc(strings.Split(keys, "\n"), func(l string) bool { return strings.HasPrefix(l, "encryption") }), "\n")
	for name, text := range map[string]string{"branch.keys": keys, "ah.keys": ah} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
}

const (
	web       = "in tcp 203.0.113.9:40000 -> 198.51.100.10:443"
	db        = "in tcp 203.0.113.9:40000 -> 198.51.100.10:5432"
	smb       = "in tcp 10.0.0.7:50000 -> 10.0.0.5:445"
	ndp       = "in icmpv6 neighbor-solicitation fe80::1 -> ff02::1:ff00:1"
	smbBack   = "out tcp 10.0.0.5:445 -> 10.0.0.7:50000 established"
	branchOut = "forward tcp 10.1.0.5:40000 -> 10.2.0.9:80"
	away      = "out tcp 198.51.100.10:50000 -> 203.0.113.9:23"
)

// TestGolden compares whole outputs with testdata/golden. After a wanted
// change: go test ./cmd/ipfw -run Golden -update, and read the difference.
func TestGolden(t *testing.T) {
	capture := testCapture(t)
	local := "198.51.100.10,2001:db8::10,10.0.0.5"
	rows := []struct {
		name string
		run  run
	}{
		{"explain-help", run{args: []string{"explain", "--help"}}},
		{"replay-help", run{args: []string{"replay", "--help"}}},
		{"unknown-command", run{args: []string{"expalin"}}},
		{"unknown-command-show", run{args: []string{"lst"}}},
		{"unknown-command-shut", run{args: []string{"shutt"}}},
		{"unknown-command-list", run{args: []string{"list"}}},
		{"unknown-help", run{args: []string{"help", "nosuch"}}},
		{"unknown-completion", run{args: []string{"completion", "nosuch"}}},
		{"unknown-ike-verb", run{args: []string{"ike", "nosuch"}}},
		{"no-argument-pki", run{args: []string{"pki", "issue"}}},
		{"no-argument-profile", run{args: []string{"profile", "show"}}},
		{"no-argument-replay", run{args: []string{"replay", "-c", "office.hcl"}}},
		{"unknown-flag", run{args: []string{"validate", "--prnt", "office.hcl"}}},
		{"no-argument", run{args: []string{"validate"}}},
		{"profile-alone", run{args: []string{"profile"}}},
		{"profile-unknown", run{args: []string{"profile", "show", "web-sever"}}},

		{"validate", run{args: []string{"validate", "office.hcl"}}},
		{"validate-json", run{args: []string{"validate", "--json", "office.hcl"}}},
		{"validate-binary", run{args: []string{"validate", "-"}, stdin: []byte("\x7fELF\x02\x01\x01\x00")}},
		{"validate-no-policy", run{args: []string{"validate", "-"}, stdin: bytes.Repeat([]byte("Dear reader, this is a letter.\n"), 100)}},
		{"validate-device", run{args: []string{"validate", "/dev/zero"}}},
		{"fmt-device", run{args: []string{"fmt", "/dev/zero"}}},
		{"validate-broken", run{args: []string{"validate", "broken.hcl"}}},
		{"validate-broken-json", run{args: []string{"validate", "--json", "broken.hcl"}}},
		{"validate-broken-color", run{args: []string{"validate", "broken.hcl"}, tty: true}},
		{"validate-missing", run{args: []string{"validate", "no-such-file.hcl"}}},
		{"validate-stdin", run{args: []string{"validate", "-"}, stdin: []byte("policy {\n  inbound = \"discard\"\n}\n")}},

		{"fmt-check", run{args: []string{"fmt", "-check", "office.hcl", "ugly.hcl"}}},
		{"fmt-check-json", run{args: []string{"fmt", "--check", "--json", "ugly.hcl"}}},
		{"fmt-stdin", run{args: []string{"fmt", "-"}, stdin: []byte("policy {\ninbound=\"discard\"\n  outbound   = \"bypass\"\n}\n")}},
		{"fmt-syntax", run{args: []string{"fmt", "-"}, stdin: []byte("policy {\n")}},
		{"fmt-profile", run{args: []string{"fmt", "profile:web-server"}}},
		{"fmt-missing", run{args: []string{"fmt", "no-such-file.hcl"}}},

		{"test", run{args: []string{"test", "office.hcl"}}},
		{"test-verbose", run{args: []string{"test", "-v", "office.hcl"}}},
		{"test-failing", run{args: []string{"test", "failing.hcl"}}},
		{"test-failing-json", run{args: []string{"test", "--json", "failing.hcl"}}},
		{"test-none", run{args: []string{"test", "ugly.hcl"}}},

		{"explain-bypass", run{args: []string{"explain", "-c", "office.hcl", web}}},
		{"explain-bypass-color", run{args: []string{"explain", "-c", "office.hcl", web}, tty: true}},
		{"explain-no-color", run{args: []string{"explain", "-c", "office.hcl", web}, tty: true, env: map[string]string{"NO_COLOR": "1"}}},
		{"explain-default", run{args: []string{"explain", "-c", "office.hcl", db}}},
		{"explain-json", run{args: []string{"explain", "-c", "office.hcl", "--json", db}}},
		{"explain-protect", run{args: []string{"explain", "-c", "office.hcl", "--exit-verdict", smb}}},
		{"explain-protect-all", run{args: []string{"explain", "-c", "office.hcl", "--all", smbBack}}},
		{"explain-protect-opened", run{args: []string{"explain", "-c", "office.hcl", smb + " protected lan"}}},
		{"explain-protect-json", run{args: []string{"explain", "-c", "branch.hcl", "--json", branchOut}}},
		{"explain-protect-tunnel", run{args: []string{"explain", "-c", "branch.hcl", branchOut}}},
		{"explain-protect-tunnel-in", run{args: []string{"explain", "-c", "branch.hcl", "--mtu", "1280", "forward udp [2001:db8:2::9]:53 -> [2001:db8:1::5]:40000"}}},
		{"explain-protect-udp", run{args: []string{"explain", "-c", "branch.hcl", "out tcp 198.51.100.1:40000 -> 192.0.2.7:445"}}},
		{"explain-protect-no-sa", run{args: []string{"explain", "-c", "branch.hcl", "out tcp 198.51.100.1:40000 -> 192.0.2.8:445"}}},
		{"explain-protect-no-sa-in", run{args: []string{"explain", "-c", "branch.hcl", "in tcp 192.0.2.8:445 -> 198.51.100.1:40000"}}},
		{"explain-protect-ah", run{args: []string{"explain", "-c", "branch.hcl", "out icmp echo-request 198.51.100.1 -> 192.0.2.9"}}},
		{"explain-protect-too-small", run{args: []string{"explain", "-c", "branch.hcl", "--mtu", "68", branchOut}}},
		{"explain-esp", run{args: []string{"explain", "-c", "branch.hcl", "in esp 203.0.113.7 -> 198.51.100.1 spi 0x1001"}}},
		{"explain-bad-mtu", run{args: []string{"explain", "-c", "branch.hcl", "--mtu", "67", branchOut}}},
		{"explain-discard-status", run{args: []string{"explain", "-c", "office.hcl", "--exit-verdict", db}}},
		{"explain-essential", run{args: []string{"explain", "-c", "office.hcl", ndp}}},
		{"explain-reject", run{args: []string{"explain", "-c", "office.hcl", away}}},
		{"explain-established", run{args: []string{"explain", "-c", "office.hcl", "out tcp 198.51.100.10:443 -> 203.0.113.9:40000 established"}}},
		{"explain-established-out", run{args: []string{"explain", "-c", "office.hcl", "in tcp 203.0.113.9:40000 -> 198.51.100.10:5432 established"}}},
		{"explain-syn-ack", run{args: []string{"explain", "-c", "office.hcl", "in tcp 203.0.113.9:443 -> 198.51.100.10:40000 syn,ack"}}},
		{"explain-syn-ack-established", run{args: []string{"explain", "-c", "office.hcl", "in tcp 203.0.113.9:443 -> 198.51.100.10:40000 syn,ack established"}}},
		{"explain-multicast", run{args: []string{"explain", "-c", "office.hcl", "out udp 198.51.100.10:40000 -> 224.0.0.252:5355"}}},
		{"explain-question", run{args: []string{"explain", "-c", "profile:workstation", "out udp 192.168.1.7:50000 -> 239.255.255.250:1900"}}},
		{"explain-question-json", run{args: []string{"explain", "-c", "profile:workstation", "--json", "out udp [fe80::7]:50000 -> [ff02::1:3]:5355 on eth0"}}},
		{"explain-answer", run{args: []string{"explain", "-c", "profile:workstation", "in udp 192.168.1.9:1900 -> 192.168.1.7:50000 answer"}}},
		{"explain-no-answer", run{args: []string{"explain", "-c", "profile:workstation", "in udp 192.168.1.9:1900 -> 192.168.1.7:50000"}}},
		{"explain-any-port", run{args: []string{"explain", "-c", "office.hcl", "in tcp 203.0.113.9 -> 198.51.100.10:443"}}},
		{"explain-any-destination", run{args: []string{"explain", "-c", "office.hcl", "out tcp 198.51.100.10 -> 203.0.113.9:any"}}},
		{"explain-any-json", run{args: []string{"explain", "-c", "office.hcl", "--json", "in udp [2001:db8::9]:any -> [2001:db8::10]:any"}}},
		{"explain-no-destination-port", run{args: []string{"explain", "-c", "office.hcl", "in tcp 203.0.113.9 -> 198.51.100.10"}}},
		{"explain-broken-json", run{args: []string{"explain", "-c", "broken.hcl", "--json", web}}},
		{"explain-related", run{args: []string{"explain", "-c", "tftp.hcl", "in udp 192.0.2.7:40000 -> 198.51.100.10:3000"}}},
		{"explain-related-told", run{args: []string{"explain", "-c", "tftp.hcl", "in udp 192.0.2.7:40000 -> 198.51.100.10:3000 related tftp"}}},
		{"explain-related-other", run{args: []string{"explain", "-c", "tftp.hcl", "in udp 192.0.2.7:40000 -> 198.51.100.10:3000 related stream"}}},
		{"explain-related-nobody", run{args: []string{"explain", "-c", "tftp.hcl", "in udp 192.0.2.7:40000 -> 198.51.100.10:3000 related ftp"}}},
		{"explain-bad-packet", run{args: []string{"explain", "-c", "office.hcl", "in tpc 203.0.113.9 -> 198.51.100.10"}}},
		{"explain-two-arguments", run{args: []string{"explain", "-c", "office.hcl", "in", "tcp"}}},
		{"explain-no-policy", run{args: []string{"explain", web}}},

		{"replay", run{args: []string{"replay", "-c", "office.hcl", "--local", local, "-"}, stdin: capture}},
		{"replay-top", run{args: []string{"replay", "-c", "office.hcl", "--local", local, "--top", "1", "-"}, stdin: capture}},
		{"replay-forward", run{args: []string{"replay", "-c", "office.hcl", "--local", local, "--forward", "10.1.0.0/16", "-"}, stdin: capture}},
		{"replay-one-packet", run{args: []string{"replay", "-c", "office.hcl", "--local", local, "-"}, stdin: onePacket(t)}},
		{"replay-guess", run{args: []string{"replay", "-c", "office.hcl", "-"}, stdin: guessable(t)}},
		{"replay-no-guess", run{args: []string{"replay", "-c", "office.hcl", "-"}, stdin: capture}},
		{"replay-json", run{args: []string{"replay", "-c", "office.hcl", "--local", local, "--json", "-"}, stdin: capture}},
		{"replay-packets", run{args: []string{"replay", "-c", "office.hcl", "--local", local, "--packets", "-"}, stdin: capture}},
		{"replay-packets-json", run{args: []string{"replay", "-c", "office.hcl", "--local", local, "--packets", "--json", "-"}, stdin: capture}},
		{"replay-answers", run{args: []string{"replay", "-c", "profile:workstation", "--local", "192.168.1.7,fe80::7", "--on-link", "192.168.1.0/24", "--packets", "-"}, stdin: answersCapture(t)}},
		{"replay-answers-unsure", run{args: []string{"replay", "-c", "profile:workstation", "--local", "192.168.1.7,fe80::7", "--packets", "-"}, stdin: answersCapture(t)}},
		{"replay-bad-on-link", run{args: []string{"replay", "-c", "profile:workstation", "--on-link", "192.168.1", "-"}}},
		{"explain-no-direction", run{args: []string{"explain", "-c", "office.hcl", "tcp 203.0.113.9 -> 198.51.100.10:80"}}},
		{"explain-no-protocol", run{args: []string{"explain", "-c", "office.hcl", "203.0.113.9 -> 198.51.100.10:80"}}},
		{"replay-empty", run{args: []string{"replay", "-c", "office.hcl", "--local", local, "-"}, stdin: linksCapture()}},
		{"replay-empty-json", run{args: []string{"replay", "-c", "profile:web-server", "--local", local, "--json", "-"}, stdin: linksCapture()}},
		{"replay-unknown-link", run{args: []string{"replay", "-c", "office.hcl", "--local", local, "-"}, stdin: linksCapture(147, 147)}},
		{"replay-unknown-link-json", run{args: []string{"replay", "-c", "office.hcl", "--json", "-"}, stdin: linksCapture(147)}},
		{"replay-some-unknown-links", run{args: []string{"replay", "-c", "office.hcl", "--local", local, "-"}, stdin: linksCapture(147, 101, 250)}},
		{"replay-not-ip", run{args: []string{"replay", "-c", "office.hcl", "--local", local, "-"}, stdin: linksCapture(1, 1)}},
		{"replay-related", run{args: []string{"replay", "-c", "tftp.hcl", "--local", local, "-"}, stdin: capture}},
		{"replay-related-json", run{args: []string{"replay", "-c", "tftp.hcl", "--local", local, "--json", "-"}, stdin: capture}},
		{"replay-cut-file", run{args: []string{"replay", "-c", "office.hcl", "--local", local, "-"}, stdin: capture[:len(capture)-3]}},
		{"replay-no-capture", run{args: []string{"replay", "-c", "office.hcl", "office.hcl"}}},
		{"replay-missing", run{args: []string{"replay", "-c", "office.hcl", "no-such-file.pcap"}}},
		{"replay-folder", run{args: []string{"replay", "-c", "office.hcl", "."}}},
		{"replay-bad-local", run{args: []string{"replay", "-c", "office.hcl", "--local", "198.51.100", "-"}}},
		{"complete-profile", run{args: []string{"__complete", "profile", "show", "web"}}},
		{"complete-config", run{args: []string{"__complete", "explain", "-c", "profile:web"}}},
		{"complete-config-empty", run{args: []string{"__complete", "explain", "-c", ""}}},
		{"complete-config-either", run{args: []string{"__complete", "run", "-c", "p"}}},
		{"complete-config-file", run{args: []string{"__complete", "shut", "-c", "off"}}},
		{"complete-path-empty", run{args: []string{"__complete", "test", ""}}},
	}
	golden, err := filepath.Abs("testdata/golden")
	if err != nil {
		t.Fatal(err)
	}
	workdir(t)
	for i := range rows {
		name, r := rows[i].name, &rows[i].run
		t.Run(name, func(t *testing.T) {
			r.do().compare(t, filepath.Join(golden, name+".txt"))
		})
	}
}

// compare holds all that a command printed against a golden file.
func (r *run) compare(t *testing.T, file string) {
	t.Helper()
	got := fmt.Sprintf("$ ipfw %s\n[exit status %d]\n", quote(r.args), r.exit)
	if r.stdout.Len() > 0 {
		got += "[standard output]\n" + r.stdout.String()
	}
	if r.stderr.Len() > 0 {
		got += "[standard error]\n" + r.stderr.String()
	}
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func quote(args []string) string {
	out := make([]string, len(args))
	for i, a := range args {
		if out[i] = a; strings.ContainsAny(a, " >") {
			out[i] = `"` + a + `"`
		}
	}
	return strings.Join(out, " ")
}
