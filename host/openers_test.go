package host

import (
	"bytes"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/nfq"
)

// Who opened a connection is known again at the next start, by its socket alone,
// until the machine has been started anew. A damaged file is told, and nothing more.
func TestOpenersAreRemembered(t *testing.T) {
	var log bytes.Buffer
	dir, boot := t.TempDir()+"/state", "one"
	o := newOpeners(dir, slog.New(slog.NewTextHandler(&log, nil)))
	o.boot = func() (string, error) { return boot, nil }
	recall := func() []engine.Opener {
		list := []nfq.Connection{{Cookie: 1}, {Cookie: 2, Opener: engine.OpenedByLocal}, {Cookie: 3}, {Cookie: 4, Opener: engine.OpenedByRemote}}
		o.recall(list)
		var all []engine.Opener
		for _, c := range list {
			all = append(all, c.Opener)
		}
		return all
	}
	nothing := []engine.Opener{0, engine.OpenedByLocal, 0, engine.OpenedByRemote}
	want := func(when string, openers ...engine.Opener) {
		t.Helper()
		if got := recall(); !reflect.DeepEqual(got, openers) {
			t.Errorf("%s: %v, want %v", when, got, openers)
		}
	}
	want("at first", nothing...)
	o.keep([]nfq.Connection{{Cookie: 1, Opener: engine.OpenedByLocal}, {Cookie: 2, Opener: engine.OpenedByRemote}, {Cookie: 3}})
	want("at the next start", engine.OpenedByLocal, engine.OpenedByRemote, 0, engine.OpenedByRemote)
	if log.Len() > 0 {
		t.Errorf("it says:\n%s", &log)
	}
	for _, text := range []string{"", "{", `{"boot":"one","opened_by":["local"]}`, `{"boot":1}`} {
		log.Reset()
		if err := os.WriteFile(o.path(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		want("damaged as "+text, nothing...)
		if strings.Count(log.String(), "level=WARN") != 1 {
			t.Errorf("damaged as %q: it says\n%s", text, &log)
		}
	}
	o.keep([]nfq.Connection{{Cookie: 1, Opener: engine.OpenedByLocal}})
	boot = "two"
	want("after the next boot", nothing...)
	o.dir = ""
	o.keep(nil)
	want("without a folder", nothing...)
}
