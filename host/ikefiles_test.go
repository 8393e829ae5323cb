package host

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipfw/ipfw/ike"
	"github.com/ipfw/ipfw/rules"
)

// A pipe or a device in the place of a file that proves something is refused
// unread, and the daemon does not hang on it.
func TestProofOfPipes(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "a.example.org.pub")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "device")
	if err := os.Symlink("/dev/zero", list); err != nil {
		t.Fatal(err)
	}
	for name, k := range map[string]*rules.IKE{
		"certificate": {Certificate: pipe}, "ca": {CA: list}, "crl": {CRL: pipe}, "public keys": {PublicKeys: dir},
		"private key": {PrivateKey: pipe}, "psk": {PSKFile: list}, "ppk": {PPKFile: pipe},
	} {
		done := make(chan error, 1)
		go func() { done <- readProof(k, &ike.Peer{}) }()
		select {
		case err := <-done:
			if err == nil || !strings.Contains(err.Error(), "is not a file but a ") {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(time.Minute):
			t.Errorf("%s: it hangs", name)
		}
	}
}
