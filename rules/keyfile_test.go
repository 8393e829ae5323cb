package rules

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
)

func TestReadKeys(t *testing.T) {
	m := Manual{Encryption: "aes-128-cbc", Integrity: "hmac-sha1-96", KeyFile: filepath.Join(t.TempDir(), "keys")}
	e, i := strings.Repeat("a1", 16), strings.Repeat("b2", 20)
	good := "encryption_in = " + e + "\nintegrity_in = " + i + "\nencryption_out = " + e + "\nintegrity_out = " + i + "\n"
	for _, tt := range []struct {
		name, text, want string
		mode             os.FileMode
	}{
		{"plain", good, "", 0o600},
		{"read only", good, "", 0o400},
		{"0x, colons, comments, no spaces", "# made today\n\nencryption_in=0x" + e + "\r\nintegrity_in=" + strings.Replace(i, "b2", "b2:", 19) + "\n" + good[strings.Index(good, "encryption_out"):], "", 0o600},
		{"no newline at the end", strings.TrimSpace(good), "", 0o600},
		{"group", good, "has mode 0640", 0o640},
		{"others", good, "has mode 0604", 0o604},
		{"writable by the group", good, "has mode 0620", 0o620},
		{"empty", "", "encryption_in is missing", 0o600},
		{"one missing", good[:strings.Index(good, "integrity_out")], "integrity_out is missing", 0o600},
		{"twice", good + "encryption_in = " + e, "line 5 gives encryption_in a second time", 0o600},
		{"unknown", "encrypt = " + e, "line 1 is none of", 0o600},
		{"no hexadecimal", "encryption_in = xyz", "line 1: the key is not an even number of hexadecimal digits", 0o600},
		{"odd", "encryption_in = a1a", "line 1: the key is not", 0o600},
		{"short", "encryption_in = a1a1", "line 1: encryption_in has 2 bytes, but aes-128-cbc takes 16", 0o600},
		{"long", "integrity_in = " + i + "b2", "line 1: integrity_in has 21 bytes, but hmac-sha1-96 takes 20", 0o600},
		{"a line without end", strings.Repeat("a1", maxKeyFile/2), "", 0o600},
		{"large", strings.Repeat("# a1a1\n", maxKeyFile/7+1), "is too large", 0o600},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(m.KeyFile, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(m.KeyFile, tt.mode); err != nil {
				t.Fatal(err)
			}
			k, err := m.ReadKeys()
			if tt.name == "a line without end" {
				tt.want = "line 1"
				if err == nil {
					t.Fatal("read")
				}
			}
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) && tt.want != "line 1" {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			text := strings.ReplaceAll(fmt.Sprintf("%v %v %+v %#v", err, k, k, k), m.KeyFile, "") // whose name is random
			if strings.Contains(text, "a1a1") || strings.Contains(text, "b2b2") || strings.Contains(text, "161") {
				t.Errorf("a key is shown: %s", text)
			}
			if err != nil {
				return
			}
			list := []esp.Key{k.EncryptionIn, k.IntegrityIn, k.EncryptionOut, k.IntegrityOut}
			for n, key := range list {
				if want := []int{16, 20}[n%2]; key.Len() != want {
					t.Errorf("key %d has %d bytes, want %d", n, key.Len(), want)
				}
			}
			k.Wipe()
			for n, key := range list {
				if key.Len() != 0 {
					t.Errorf("key %d is left after Wipe", n)
				}
			}
		})
	}
	m.KeyFile = t.TempDir()
	if _, err := m.ReadKeys(); err == nil || !strings.Contains(err.Error(), "is not a file") {
		t.Errorf("folder: %v", err)
	}
	m.KeyFile += "/nowhere"
	if _, err := m.ReadKeys(); err == nil || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("nowhere: %v", err)
	}
}

// What CheckFiles changes: nothing but the missing file.
func TestMissingFiles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "p.hcl")
	text := shut + "rule \"r\" {\n  action = \"protect\"\n  with = \"x\"\n  direction = \"in\"\n}\nipsec \"x\" {\n  mode = \"transport\"\n  ike = \"x\"\n}\n" +
		"ike \"x\" {\n  remote_id = \"b.example.org\"\n  psk_file = \"x.psk\"\n}\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	check := func(o LoadOptions, errors, warnings int) {
		t.Helper()
		p, d := Load([]string{file}, o)
		e := 0
		for _, v := range d.All() {
			if v.Severity == "error" {
				e++
			}
		}
		if e != errors || d.Len()-e != warnings || (p == nil) != (errors > 0) {
			t.Errorf("%+v: %d errors, %d warnings, want %d and %d: %v", o, e, d.Len()-e, errors, warnings, d.All())
		}
	}
	check(LoadOptions{}, 0, 1)
	check(LoadOptions{CheckFiles: true}, 1, 0)
	psk := filepath.Join(dir, "x.psk")
	if err := os.WriteFile(psk, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	check(LoadOptions{}, 0, 0)
	check(LoadOptions{CheckFiles: true}, 0, 0)
	if err := os.Chmod(psk, 0o644); err != nil {
		t.Fatal(err)
	}
	check(LoadOptions{}, 1, 0)
	check(LoadOptions{CheckFiles: true}, 1, 0)
	if os.Geteuid() == 0 {
		if err := os.Chmod(psk, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(psk, 12345, 0); err != nil {
			t.Fatal(err)
		}
		check(LoadOptions{CheckFiles: true}, 1, 0)
	}
	if p, d := Load([]string{"profile:file-server"}, LoadOptions{CheckFiles: true}); p != nil && !fileExists("/etc/ipfw/files.example.org.key") {
		t.Errorf("a profile runs without its keys: %v", d.All())
	}
}

func fileExists(p string) bool {
	_, err := os.Stat(p)
	return err == nil
}

// Two hosts with each other's keys: what one seals, the other opens. That
// shows that no key ends up in another's place.
func TestManualSAs(t *testing.T) {
	dir := t.TempDir()
	text := func(local, remote string, in, out int) string {
		return fmt.Sprintf(shut+`
rule "r" {
  action         = "protect"
  with           = "x"
  direction      = "both"
  remote_address = "192.0.2.0/24"
}
ipsec "x" {
  mode            = "transport"
  local_endpoint  = %q
  remote_endpoint = %q
  lifetime        = "1h"
  manual {
    spi_in     = %d
    spi_out    = %d
    encryption = "aes-256-cbc"
    integrity  = "hmac-sha2-512-256"
    key_file   = "x.keys"
  }
}
`, local, remote, in, out)
	}
	key := func(c string, n int) string { return strings.Repeat(c, n) }
	host := func(name, policy, in, out string) (esp.Config, esp.Config) {
		t.Helper()
		d := filepath.Join(dir, name)
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		keys := "encryption_in = " + key(in, 32) + "\nintegrity_in = " + key(in, 64) + "\nencryption_out = " + key(out, 32) + "\nintegrity_out = " + key(out, 64) + "\n"
		if err := os.WriteFile(filepath.Join(d, "x.keys"), []byte(keys), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, "p.hcl"), []byte(policy), 0o644); err != nil {
			t.Fatal(err)
		}
		p, diags := Load([]string{filepath.Join(d, "p.hcl")}, LoadOptions{CheckFiles: true})
		if p == nil {
			t.Fatal(diagText(t, diags))
		}
		i, o, err := p.IPsec[0].ManualSAs()
		if err != nil {
			t.Fatal(err)
		}
		if i.Check() != nil || o.Check() != nil || !i.NoReplayCheck || i.Hard.Time.Hours() != 1 {
			t.Errorf("%s: %v, %v, %+v", name, i.Check(), o.Check(), i)
		}
		return i, o
	}
	inA, outA := host("a", text("192.0.2.1", "192.0.2.2", 0x1001, 0x1002), "a1", "b2")
	inB, outB := host("b", text("192.0.2.2", "192.0.2.1", 0x1002, 0x1001), "b2", "a1")
	for _, tt := range []struct {
		out, in esp.Config
		line    string
	}{
		{outA, inB, "out udp 192.0.2.1:7 -> 192.0.2.2:9"},
		{outB, inA, "out udp 192.0.2.2:9 -> 192.0.2.1:7"},
	} {
		trial, err := engine.ParseTrial(tt.line)
		if err != nil {
			t.Fatal(err)
		}
		clear, err := packet.Build(trial.Spec)
		if err != nil {
			t.Fatal(err)
		}
		if got := sealAndOpen(t, tt.out, tt.in, clear); string(got) != string(clear) {
			t.Errorf("%s: %x came out of %x", tt.line, got, clear)
		}
	}
}

func sealAndOpen(t *testing.T, out, in esp.Config, clear []byte) []byte {
	t.Helper()
	sender, err := esp.New(out)
	if err != nil {
		t.Fatal(err)
	}
	receiver, err := esp.New(in)
	if err != nil {
		t.Fatal(err)
	}
	sealed, _, f := sender.Seal(nil, clear, 1)
	if f != esp.OK {
		t.Fatalf("seal: %v", f)
	}
	got, _, f := receiver.Open(sealed, 1)
	if f != esp.OK {
		t.Fatalf("open: %v", f)
	}
	return got
}
