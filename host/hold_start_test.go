package host

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/nfq"
)

// A start that fails when the policy was good has shut the host before, and
// says so with the way back; a policy that is not good, one that asks for an
// open host, and a start that asked to be confirmed shut nothing.
func TestStartThatFails(t *testing.T) {
	for _, tc := range []struct {
		name, policy string
		confirm      time.Duration
		held         bool
	}{
		{"good policy", shutPolicy, 0, true},
		{"bad policy", "policy {", 0, false},
		{"open", "policy {\n  inbound = \"discard\"\n  outbound = \"bypass\"\n  on_failure = \"open\"\n}\n", 0, false},
		{"confirm", shutPolicy, time.Minute, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			policy := filepath.Join(dir, "ipfw.hcl")
			if err := os.WriteFile(policy, []byte(tc.policy), 0o600); err != nil {
				t.Fatal(err)
			}
			k := newFakeKernel()
			o := Options{Paths: []string{policy}, Socket: filepath.Join(dir, "s"), Confirm: tc.confirm, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
			broken := errors.New("the kernel is not what it was")
			err := run(t.Context(), o, opener{hold: k.hold, open: func(*loaded, int, *slog.Logger, func(*nfq.Datagram)) (firewall, error) {
				if (k.held > 0) != tc.held {
					t.Errorf("opened when the host was shut %d times", k.held)
				}
				return nil, broken
			}})
			if (k.held > 0) != tc.held {
				t.Errorf("shut %d times", k.held)
			}
			if tc.name != "bad policy" && !errors.Is(err, broken) {
				t.Errorf("error %v", err)
			}
			if err == nil || strings.Contains(err.Error(), "`ipfw open`") != tc.held {
				t.Errorf("error %v, want it to tell the way back: %v", err, tc.held)
			}
		})
	}
}
