package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// pki runs `ipfw pki` in a folder of the test.
func pki(t *testing.T, l *lab.Lab, h *lab.Host, args ...string) {
	t.Helper()
	h.Run(append([]string{lab.Binary(t), "pki"}, append(args, "--dir", filepath.Join(l.Dir, "ca"))...)...)
}

// The two sides prove who they are in each way that a policy has; one that
// cannot is told so by the reason, and by the line of the policy to look at.
func TestIKEProof(t *testing.T) {
	t.Parallel()
	certificate := func(l *lab.Lab, name string) string {
		return fmt.Sprintf("  certificate = %q\n  private_key = %q\n  ca = %q\n  crl = %q\n",
			l.Dir+"/ca/"+name+".pem", l.Dir+"/ca/"+name+".key", l.Dir+"/ca/ca.pem", l.Dir+"/ca/ca.crl")
	}
	const psk = "correct horse battery staple"
	for _, row := range []struct {
		name  string
		proof func(l *lab.Lab, client, server *lab.Host) (c, s string)
		want  string // in the server's events; empty: it works
	}{
		{"psk", func(l *lab.Lab, _, _ *lab.Host) (c, s string) {
			return fmt.Sprintf("  psk_file = %q\n", l.File("one.psk", psk+"\n")), fmt.Sprintf("  psk_file = %q\n", l.File("two.psk", psk))
		}, ""},
		{"psk and ppk", func(l *lab.Lab, _, _ *lab.Host) (c, s string) {
			p := fmt.Sprintf("  psk_file = %q\n  ppk_file = %q\n  ppk_id = \"k1\"\n  ppk_required = true\n", l.File("psk", psk), l.File("ppk", "k1 = 0x"+strings.Repeat("5a", 32)+"\n"))
			return p, p
		}, ""},
		{"wrong psk", func(l *lab.Lab, _, _ *lab.Host) (c, s string) {
			return fmt.Sprintf("  psk_file = %q\n", l.File("one.psk", psk)), fmt.Sprintf("  psk_file = %q\n", l.File("two.psk", psk+"!"))
		}, "failed (wrong-key): the peer has not proved who it is: it has another key; the pre-shared keys differ; look at psk_file in "},
		{"certificates", func(l *lab.Lab, client, _ *lab.Host) (c, s string) {
			pki(t, l, client, "init")
			pki(t, l, client, "issue", "client")
			pki(t, l, client, "issue", "server", "--type", "ed25519")
			return certificate(l, "client"), certificate(l, "server")
		}, ""},
		{"revoked", func(l *lab.Lab, client, _ *lab.Host) (c, s string) {
			pki(t, l, client, "init")
			pki(t, l, client, "issue", "client")
			pki(t, l, client, "issue", "server")
			pki(t, l, client, "revoke", "client")
			return certificate(l, "client"), certificate(l, "server")
		}, "failed (bad-certificate): the peer's certificate is not good; certificate of client: revoked"},
		{"raw keys, the wrong one", func(l *lab.Lab, _, _ *lab.Host) (c, s string) {
			l.RawKeys(true, "client", "server")
			if err := os.Rename(filepath.Join(l.Dir, "server/peers/server.pub"), filepath.Join(l.Dir, "server/peers/client.pub")); err != nil {
				t.Fatal(err)
			}
			return rawKeys, rawKeys
		}, "failed (wrong-key)"},
		{"no common proposal", func(l *lab.Lab, _, _ *lab.Host) (c, s string) {
			l.RawKeys(false, "client", "server")
			return rawKeys + "  encryption = \"aes-256-gcm-16\"\n", rawKeys + "  encryption = \"chacha20-poly1305\"\n"
		}, "look at encryption in "},
	} {
		t.Run(row.name, func(t *testing.T) {
			l, client, server := lab.Pair(t)
			lab.Need(t, "ping")
			more, moreServer := row.proof(l, client, server)
			a := &ikeHost{Host: client, name: "client", policy: l.File("client/policy.hcl", ikePolicy("transport", "esp", "client", "10.77.0.2", "server", "10.77.0.1", more))}
			b := &ikeHost{Host: server, name: "server", policy: l.File("server/policy.hcl", ikePolicy("transport", "esp", "server", "10.77.0.1", "client", "10.77.0.2", moreServer))}
			a.run(t)
			b.run(t)
			out, err := client.Try(waitLong, "ping", "-c", "2", "-i", "0.2", "-W", "5", "10.77.0.1")
			if row.want == "" {
				if err != nil {
					t.Error(out)
				}
				return
			}
			if err == nil {
				t.Error("answered by a host that should not believe us")
			}
			l.Eventually(waitLong, "the server says why: "+row.want, func() bool {
				return strings.Contains(b.daemon.Ask("events"), row.want)
			})
		})
	}
}

// The README's two hosts in five commands, word for word but for the addresses
// and the folder.
func TestReadmeTwoHosts(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, walk, _ := strings.Cut(string(text), "\n## Two hosts in five commands\n")
	policy, walk, _ := strings.Cut(walk[strings.Index(walk, "```hcl\n")+7:], "```")
	walk = walk[strings.Index(walk, "\n```\n")+5:]
	commands := strings.Split(strings.TrimSpace(walk[:strings.Index(walk, "```")]), "\n")
	if len(commands) != 5 {
		t.Fatalf("%d commands, want five:\n%s", len(commands), strings.Join(commands, "\n"))
	}

	l := lab.New(t)
	lab.Need(t, "ping", "tcpdump")
	alpha, beta := l.Host("alpha"), l.Host("beta")
	l.Join(alpha, "a0", []string{"192.0.2.1/24"}, beta, "b0", []string{"192.0.2.2/24"})
	// Each host's own /etc/ipfw and ipfw; ssh runs a command on beta.
	etc := map[*lab.Host]string{alpha: filepath.Join(l.Dir, "alpha"), beta: filepath.Join(l.Dir, "beta")}
	for h, dir := range etc {
		for _, sub := range []string{"bin", "etc"} {
			if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		script(t, filepath.Join(dir, "bin/ipfw"), fmt.Sprintf(`case $1 in
pki) exec %[1]s "$@" --dir %[2]s/etc ;;
run) exec %[1]s run -c %[2]s/etc/ipfw.hcl --socket %[2]s/sock --state "" ;;
*) exec %[1]s "$@" --socket %[2]s/sock ;;
esac`, lab.Binary(t), dir))
		_ = h
	}
	script(t, filepath.Join(etc[alpha], "bin/ssh"), fmt.Sprintf(`back=
[ "$1" != -f ] || { back=1; shift; }
[ "$1" = root@192.0.2.2 ] || exit 255
shift
cmd=$(printf '%%s' "$*" | sed 's|%[3]s/etc|%[2]s/etc|g')
if [ -n "$back" ]; then
  PATH=%[2]s/bin:$PATH ip netns exec %[1]s sh -c "$cmd" >%[2]s/log 2>&1 </dev/null &
else
  PATH=%[2]s/bin:$PATH ip netns exec %[1]s sh -c "$cmd"
fi`, beta.NS, etc[beta], etc[alpha]))
	l.File("alpha/etc/ipfw.hcl", policy)

	wire := beta.Capture("b0", "host 192.0.2.1")
	shell := func(c string) []string {
		c = strings.ReplaceAll(c, "/etc/ipfw", etc[alpha]+"/etc")
		return []string{"env", "PATH=" + etc[alpha] + "/bin:" + os.Getenv("PATH"), "sh", "-c", c}
	}
	for _, c := range commands[:4] {
		alpha.Run(shell(c)...)
	}
	last := alpha.Start(shell("exec " + commands[4])...) // so that the test can end it
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(etc[beta], "log"))
			t.Logf("alpha:\n%s\nbeta:\n%s", last.Output(), log)
		}
	})
	l.Eventually(waitLong, "both hosts run ipfw", func() bool {
		_, err := alpha.Try(waitLong, shell("ipfw status && ssh root@192.0.2.2 ipfw status")...)
		return err == nil
	})
	alpha.Run("ping", "-c", "2", "-i", "0.2", "-W", "5", "192.0.2.2")
	beta.Run("ping", "-c", "2", "-i", "0.2", "-W", "5", "192.0.2.1")
	if out := alpha.Run(shell("ipfw sas")...); !strings.Contains(out, "esp/udp transport") {
		t.Errorf("ipfw sas:\n%s", out)
	}
	sealed(t, wire)
}

// script writes a shell script that can be run.
func script(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}
