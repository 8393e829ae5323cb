package host

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/rules"
)

// protectedBy is a rule with its ipsec and ike block, which have these arguments
// besides.
func protectedBy(ipsec, ike string) string {
	return `
rule "all" {
  action    = "protect"
  with      = "x"
  direction = "both"
  remote_address = "192.0.2.2"
}
ipsec "x" {
  mode = "transport"
  ike  = "x"
` + ipsec + `
}
ike "x" {
  remote_endpoint = "192.0.2.2"
` + ike + "\n}\n"
}

// A dry run refuses what a daemon refuses, and points at it.
func TestDryRunRefusesWhatADaemonDoes(t *testing.T) {
	many := func(n int) string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf("\"10.%d.%d.0/25\"", i/256, i%256))
		}
		return fmt.Sprintf(`
rule "all" {
  action        = "protect"
  with          = "x"
  direction     = "both"
  local_address = [%s]
}
ipsec "x" {
  mode = "tunnel"
  ike  = "x"
}
ike "x" {
  remote_endpoint = "192.0.2.2"
  psk_file        = "k"
}
`, strings.Join(list, ", "))
	}
	manual := func(name, spi string) string {
		return fmt.Sprintf(`
rule %q {
  action    = "protect"
  with      = %q
  direction = "both"
  remote_address = "192.0.2.2"
}
ipsec %q {
  mode = "tunnel"
  local_endpoint = "192.0.2.1"
  remote_endpoint = "192.0.2.2"
  manual {
    spi_in = %q
    spi_out = "0x2000"
    encryption = "aes-256-cbc"
    integrity = "hmac-sha2-256-128"
    key_file = "m"
  }
}
`, name, name, name, spi)
	}
	keys := map[string]string{"m": strings.ReplaceAll("encryption_in = 64\nintegrity_in = 64\nencryption_out = 64\nintegrity_out = 64\n", "64", strings.Repeat("7a", 32))}
	psk := map[string]string{"k": goodPSK}
	for _, row := range []struct {
		name, policy string
		files        map[string]string
		want         string // empty: both take it
	}{
		{"good", protectedBy("", `psk_file = "k"`), psk, ""},
		{"local_id of a type that nobody knows", protectedBy("", "psk_file = \"k\"\nlocal_id = \"CN=us,XY=1\""), psk, `"XY" is not a type`},
		{"local_id that is a pattern", protectedBy("", "psk_file = \"k\"\nlocal_id = \"*.example\""), psk, "a pattern"},
		{"local_id with DC", protectedBy("", "psk_file = \"k\"\nlocal_id = \"CN=us,DC=example,DC=org\""), psk, ""},
		{"remote_id with DC, mail, UID, several values", protectedBy("", "psk_file = \"k\"\nremote_id = \"CN=a+UID=b,E=c,DC=org\""), psk, ""},
		{"remote_id of a type that nobody knows", protectedBy("", "psk_file = \"k\"\nremote_id = \"CN=*,XY=1\""), psk, `"XY" is not a type`},
		{"remote_id that is a range", protectedBy("", "psk_file = \"k\"\nremote_id = \"192.0.2.*\""), psk, "remote_endpoint"},
		{"64 networks", many(64), psk, ""},
		{"too many networks", many(300), psk, "ranges of addresses"},
		{"queues past the last", strings.Replace(protectedBy("", `psk_file = "k"`), "\nrule", "\n# queues\nrule", 1), psk, "need 1 to 256"},
		{"short key", protectedBy("", `psk_file = "k"`), map[string]string{"k": "swordfish"}, "a key of 9 bytes can be guessed"},
		{"no key", protectedBy("", "private_key = \"k\"\npublic_keys = \"p\"\nlocal_id = \"a\""), map[string]string{"k": "swordfish", "p/b.pub": "x"}, "no private key"},
		{"ppk_id that is not there", protectedBy("", "psk_file = \"k\"\nppk_file = \"q\"\nppk_id = \"b\""), map[string]string{"k": goodPSK, "q": "a = 0123456789abcdefghij\n"}, "post-quantum"},
		{"manual", manual("a", "0x1001") + manual("b", "0x1002"), keys, ""},
		{"manual with one SPI twice", manual("a", "0x1001") + manual("b", "0x1001"), keys, "SPI"},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			head := "policy {\n  inbound = \"discard\"\n  outbound = \"bypass\"\n"
			if strings.Contains(row.policy, "# queues") {
				head += "  queue = 65000\n  queues = 256\n"
			}
			files := map[string]string{"policy.hcl": head + "}\n" + row.policy}
			for name, text := range row.files {
				files[name] = text
			}
			for name, text := range files {
				path := filepath.Join(dir, name)
				err := os.MkdirAll(filepath.Dir(path), 0o700)
				if err == nil {
					err = os.WriteFile(path, []byte(text), 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			path := filepath.Join(dir, "policy.hcl")
			_, dry := rules.Load([]string{path}, rules.LoadOptions{Check: CheckAll})
			run := daemonRefuses(path)
			if row.want == "" {
				if dry.HasErrors() || run != nil {
					t.Errorf("dry run: %v; daemon: %v", dry.Err(), run)
				}
				return
			}
			if run == nil || !strings.Contains(run.Error(), row.want) {
				t.Errorf("daemon: %v, want %q", run, row.want)
			}
			if dry.Len() == 0 || !dry.HasErrors() || !strings.Contains(dry.Err().Error(), row.want) || strings.Contains(dry.Err().Error(), "swordfish") {
				t.Errorf("dry run: %v, want %q", dry.Err(), row.want)
			}
			for _, d := range dry.All() {
				if d.Severity == "error" && d.Line == 0 {
					t.Errorf("%s points nowhere", d)
				}
			}
		})
	}
}

// TestProofIsRefusedAtItsArgument: what does not fit of a certificate is told at the
// line that is at fault, by a dry run and by the daemon.
func TestProofIsRefusedAtItsArgument(t *testing.T) {
	now := time.Now()
	valid := [2]time.Time{now.AddDate(0, 0, -1), now.AddDate(1, 0, 0)}
	for _, row := range []struct {
		old, new string // in the policy
		line     string
		want     string
	}{
		{`"alpha.example.org"`, `"gamma.example.org"`, ":17", "local_id gamma.example.org is not in the certificate"},
		{`"own.key"`, `"other/own.key"`, ":19", "private key does not belong to the certificate"},
	} {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "other"), 0o700); err != nil {
			t.Fatal(err)
		}
		lasting(t, filepath.Join(dir, "other"), valid, valid, valid)
		path := filepath.Join(dir, "policy.hcl")
		if err := os.WriteFile(path, []byte(strings.Replace(lasting(t, dir, valid, valid, valid), row.old, row.new, 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		_, dry := rules.Load([]string{path}, rules.LoadOptions{Check: CheckAll})
		for who, err := range map[string]error{"dry run": dry.Err(), "daemon": daemonRefuses(path)} {
			if err == nil || !strings.Contains(err.Error(), path+row.line) || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%s: %v, want %q at %s", who, err, row.want, row.line)
			}
		}
	}
}

// daemonRefuses takes the steps of a daemon that say no to a policy.
func daemonRefuses(path string) error {
	l, bad := newLoader(Options{Paths: []string{path}}).load("")
	if bad != nil {
		return bad
	}
	if err := kernelConfig(l, 1, slog.New(slog.DiscardHandler)).Check(); err != nil {
		return err
	}
	k := newKeeper(newNumbers("", slog.New(slog.DiscardHandler)), newRing(8))
	defer k.close()
	blocks, err := k.prepare(l.Policy, 0)
	if err == nil {
		err = k.put(blocks)
	}
	if err != nil {
		return err
	}
	_, err = peersOf(l.Policy)
	return err
}
