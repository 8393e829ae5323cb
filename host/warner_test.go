package host

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWarningsAreEvents: what a part of the daemon warns of is in the log once, and
// among the events, with all that the log says.
func TestWarningsAreEvents(t *testing.T) {
	var out bytes.Buffer
	r := newRing(8)
	log := newWarner(slog.New(slog.NewTextHandler(&out, nil)), r)
	log.Info("not an event")
	log.With("queue", 7).WithGroup("g").Warn("not kept", "error", "no space left on device")
	got := make([]Event, 8)
	n, _ := r.reader(10).read(got)
	if got = got[:n]; n != 1 || got[0].Kind != KindWarning || got[0].Message != "not kept; queue: 7; error: no space left on device" {
		t.Errorf("events: %+v", got)
	}
	if text := out.String(); strings.Count(text, "not kept") != 1 || !strings.Contains(text, "not an event") || !strings.Contains(text, `queue=7 g.error="no space`) {
		t.Errorf("log: %s", text)
	}
}

// TestStateFolderIsTold: a folder that takes no files keeps no daemon from starting,
// and an event tells of it.
func TestStateFolderIsTold(t *testing.T) {
	state := filepath.Join(t.TempDir(), "a file")
	if err := os.WriteFile(state, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer // written by the daemon alone, and read when it has ended
	d := start(t, protectPolicy(0x1001, keyFile(t, "1"), ""), func(o *Options) {
		o.StateDir, o.Logger = state, slog.New(slog.NewTextHandler(&out, nil))
	})
	for _, want := range []string{"sequence numbers of manual SAs are not kept", "who has opened the connections that are there is not kept"} {
		if e := d.waitForMessage(t, KindWarning, want); !strings.Contains(e.Message, "not a directory") {
			t.Errorf("no reason in %q", e.Message)
		}
	}
	d.stop()
	if err := <-d.done; err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "sequence numbers of manual SAs are not kept"); n != 1 {
		t.Errorf("the log says it %d times", n)
	}
}
