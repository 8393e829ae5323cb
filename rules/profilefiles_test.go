package rules

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestProfileFiles: whoever starts the daemon with a profile that wants keys
// hears which files are missing, and how to make them; with them the profile
// loads.
func TestProfileFiles(t *testing.T) {
	for profile, missing := range map[string][]string{
		"file-server": {"peers", "files.example.org.key"}, "two-offices": {"peers", "north.example.org.key"}, "vpn-gateway": {"users", "vpn.example.org.key"},
		"file-client": {"peers", "client.example.org.key"}, "vpn-client": {"peers", "ann@example.org.key"},
	} {
		dir := t.TempDir()
		text, err := Profile(profile)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "policy.hcl")
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
		_, diags := Load([]string{path}, LoadOptions{CheckFiles: true})
		said := ""
		for _, d := range diags.All() {
			said += d.String() + "\n"
		}
		for _, name := range missing {
			if !strings.Contains(said, filepath.Join(dir, name)+" does not exist: make ") || !strings.Contains(said, "openssl") {
				t.Errorf("%s without %s: %s", profile, name, said)
			}
		}
		if n := strings.Count(said, "does not exist"); n != len(missing) {
			t.Errorf("%s: %d files missing, want %d: %s", profile, n, len(missing), said)
		}
		for _, name := range missing {
			if strings.HasSuffix(name, ".key") {
				err = os.WriteFile(filepath.Join(dir, name), []byte("a key"), 0o600)
			} else {
				err = os.Mkdir(filepath.Join(dir, name), 0o755)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if _, diags := Load([]string{path}, LoadOptions{CheckFiles: true}); diags.HasErrors() {
			t.Errorf("%s with its files: %v", profile, diags.Err())
		}
	}
}
