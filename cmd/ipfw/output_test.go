package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// full is a file on a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// everyCommand has a command line for each command that prints, which answers
// well; daemon says that it talks to one.
func everyCommand() map[string]struct {
	args   []string
	daemon bool
} {
	type line = struct {
		args   []string
		daemon bool
	}
	dry := func(args ...string) line { return line{args: args} }
	live := func(args ...string) line { return line{append(args, "--socket", "ipfw.sock"), true} }
	return map[string]line{
		"validate": dry("validate", "office.hcl"), "fmt": dry("fmt", "--check", "ugly.hcl"), "test": dry("test", "-v", "office.hcl"),
		"explain": dry("explain", "-c", "office.hcl", web), "replay": dry("replay", "-c", "office.hcl", "--local", "198.51.100.10", "a.pcap"),
		"profile list": dry("profile", "list"), "profile show": dry("profile", "show", "web-server"), "version": dry("version"),
		"pki key": dry("pki", "key", "alpha", "--dir", "keys"), "pki init": dry("pki", "init", "--dir", "ca"), "pki issue": dry("pki", "issue", "gw.example.org", "--dir", "ca2"),
		"pki crl": dry("pki", "crl", "--dir", "ca2"), "pki revoke": dry("pki", "revoke", "old.example.org", "--dir", "ca2"),
		"pki bundle": dry("pki", "bundle", "old.example.org", "--dir", "ca2", "--for", "strongswan", "--gateway", "gw.example.org"),
		"status":     live("status"), "show": live("show"), "flows": live("flows"), "sas": live("sas"), "ike": live("ike"), "ike list": live("ike", "list"), "ike rekey": live("ike", "rekey", "south"),
		"events": live("events"), "reload": live("reload"), "confirm": live("confirm"),
	}
}

// printNothing are the commands that everyCommand leaves out: they print nothing,
// or need root, or are cobra's.
var printNothing = []string{"run", "shut", "open", "demo", "ike initiate", "ike terminate", "help", "completion bash", "completion zsh", "completion fish", "completion powershell"}

// TestFullOutput: a command that cannot write its answer says so and exits with 1,
// and with nothing in its answer but that.
func TestFullOutput(t *testing.T) {
	capture := testCapture(t)
	workdir(t)
	writeFile(t, "a.pcap", capture)
	if r := ipfw("pki", "init", "--dir", "ca2"); r.exit != 0 {
		t.Fatal(r.stderr.String())
	}
	if r := ipfw("pki", "issue", "old.example.org", "--dir", "ca2"); r.exit != 0 {
		t.Fatal(r.stderr.String())
	}
	busy().serve(t)
	commands := everyCommand()
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			walk(sub)
		}
		name := strings.TrimPrefix(c.CommandPath(), "ipfw ")
		if _, ok := commands[name]; !ok && c.HasParent() && !c.HasSubCommands() && !slices.Contains(printNothing, name) {
			t.Errorf("%s is not tried: add it to everyCommand", name)
		}
	}
	walk(newRoot(&app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}))
	lines := [][]string{{"--version"}, {"--help"}, {"explain", "--help"}, {"help", "run"}, {"completion", "bash"}, {"profile", "list", "--json"}, {"validate", "--json", "broken.hcl"}, {"fmt", "-"}, {"fmt", "--json", "-"},
		{"replay", "-c", "office.hcl", "--local", "198.51.100.10", "--packets", "a.pcap"}}
	for _, c := range commands {
		lines = append(lines, c.args)
		if c.daemon {
			lines = append(lines, append(slices.Clone(c.args), "--json"))
		}
	}
	for _, args := range lines {
		var stderr bytes.Buffer
		a := &app{stdin: strings.NewReader("policy {\n  inbound = \"discard\"\n}\n"), stdout: full{}, stderr: &stderr, getenv: func(string) string { return "" }, now: time.Now}
		if code := a.executeContext(context.Background(), args); code != exitError || strings.Count(stderr.String(), "the standard output could not be written to its end: no space left on device") != 1 {
			t.Errorf("ipfw %s: exit %d: %s", strings.Join(args, " "), code, stderr.String())
		}
	}
}

// TestNoSuggestionCutsOff: whatever somebody types who means another command, no
// hint leads to shut, which cuts the host off, nor to open, which opens it.
func TestNoSuggestionCutsOff(t *testing.T) {
	words := []string{"show", "list", "ls", "stop", "off", "close", "closed", "down", "halt", "disable", "flush", "shutdown", "lock"}
	for _, word := range []string{"shut", "open"} {
		for i := range len(word) + 1 {
			for c := 'a'; c <= 'z'; c++ {
				words = append(words, word[:i]+string(c)+word[i:])
				if i < len(word) {
					words = append(words, word[:i]+string(c)+word[i+1:], word[:i]+word[i+1:])
				}
			}
		}
	}
	names := map[string]bool{}
	root := newRoot(&app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard})
	for _, c := range root.Commands() {
		names[c.Name()] = true
	}
	for _, word := range words {
		if names[word] || word == "" {
			continue
		}
		for _, args := range [][]string{{word}, {"help", word}} {
			r := ipfw(args...)
			if text := r.stderr.String(); r.exit != exitUsage || !strings.Contains(text, "there is no command") || strings.Contains(text, `"shut"?`) || strings.Contains(text, `"open"?`) {
				t.Errorf("ipfw %v: exit %d: %s", args, r.exit, text)
			}
		}
	}
	for word, meant := range others() {
		if !names[meant] || names[word] {
			t.Errorf("%q leads to %q", word, meant)
		}
	}
}

// TestErrorsAsJSON: with --json whatever goes wrong is an object with an error, and
// the diagnostics of a policy that is not good.
func TestErrorsAsJSON(t *testing.T) {
	workdir(t)
	for _, row := range []struct {
		args        []string
		exit        int
		diagnostics bool
	}{
		{[]string{"explain", "-c", "broken.hcl", "--json", web}, exitError, true},
		{[]string{"test", "--json", "broken.hcl"}, exitError, true},
		{[]string{"replay", "-c", "broken.hcl", "--json", "a.pcap"}, exitError, true},
		{[]string{"replay", "-c", "office.hcl", "--json", "nosuch.pcap"}, exitError, false},
		{[]string{"explain", "-c", "office.hcl", "--json", "in tpc"}, exitUsage, false},
		{[]string{"explain", "--json", web}, exitUsage, false},
		{[]string{"validate", "--json"}, exitUsage, false},
		{[]string{"validate", "--json", "--nosuch", "office.hcl"}, exitUsage, false},
		{[]string{"fmt", "--json", "profile:web-server"}, exitUsage, false},
		{[]string{"status", "--json", "--socket", "nosuch.sock"}, exitError, false},
		{[]string{"flows", "--json", "--socket", "nosuch.sock"}, exitError, false},
		{[]string{"ike", "initiate", "south", "--json", "--socket", "nosuch.sock"}, exitError, false},
	} {
		r := ipfw(row.args...)
		var got failure
		dec := json.NewDecoder(&r.stdout)
		if err := dec.Decode(&got); err != nil || dec.More() || got.Error == "" || r.exit != row.exit || len(got.Diagnostics) > 0 != row.diagnostics || r.stderr.Len() > 0 {
			t.Errorf("ipfw %v: exit %d, %+v, %v; %s", row.args, r.exit, got, err, r.stderr.String())
		}
	}
	r := (&run{args: []string{"fmt", "--json", "-"}, stdin: []byte("policy {\n")}).do()
	var f formatted
	if err := json.Unmarshal(r.stdout.Bytes(), &f); err != nil || r.exit != exitError || len(f.Errors) != 1 || len(f.Diagnostics) == 0 || r.stderr.Len() > 0 {
		t.Errorf("%+v, %v, exit %d; %s", f, err, r.exit, r.stderr.String())
	}
}

// TestReplayInterrupted: a capture that goes on is summed up when somebody ends it.
func TestReplayInterrupted(t *testing.T) {
	capture := testCapture(t)
	workdir(t)
	in, feed := io.Pipe()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go func() {
		feed.Write(capture)
		feed.Write(nil) // the reader has come back for more
		stop()
	}()
	var stdout, stderr bytes.Buffer
	a := &app{stdin: in, stdout: &stdout, stderr: &stderr, getenv: func(string) string { return "" }, now: time.Now}
	done := make(chan int, 1)
	go func() {
		done <- a.executeContext(ctx, []string{"replay", "-c", "office.hcl", "--local", "198.51.100.10", "--top", "1", "-"})
	}()
	var code int
	select {
	case code = <-done:
	case <-time.After(2 * time.Minute):
		t.Fatal("the replay waits for more, though somebody has ended it")
	}
	if code != exitOK || !strings.Contains(stdout.String(), "packets, ") || !strings.Contains(stderr.String(), "interrupted: this is what was read until then") {
		t.Errorf("exit %d\n%s%s", code, stdout.String(), stderr.String())
	}
}
