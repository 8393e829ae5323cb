package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfw/ipfw/host"
)

// watched is output that a test can wait for.
type watched struct {
	sync.Mutex
	bytes.Buffer
}

func (w *watched) Write(b []byte) (int, error) {
	w.Lock()
	defer w.Unlock()
	return w.Buffer.Write(b)
}

func (w *watched) waitFor(t *testing.T, text string) {
	t.Helper()
	for begun := time.Now(); time.Since(begun) < 2*time.Minute; time.Sleep(5 * time.Millisecond) {
		w.Lock()
		found := strings.Contains(w.String(), text)
		w.Unlock()
		if found {
			return
		}
	}
	t.Fatalf("no %q in %q", text, w.String())
}

// eventDaemon is a daemon with one event, which it sends to whoever follows.
func eventDaemon(t *testing.T, message string) (stop func()) {
	t.Helper()
	l, err := net.Listen("unix", "ipfw.sock")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/events", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(host.Event{Seq: 1, Time: time.Unix(0, 0).UTC(), Kind: host.KindStart, Message: message})
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	s := &http.Server{Handler: mux}
	go s.Serve(l)
	return func() { s.Close() }
}

// TestEventsOutliveDaemon: events -f says that the daemon has stopped, and goes on
// with the one that comes after it.
func TestEventsOutliveDaemon(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, asJSON := range []bool{false, true} {
		stop := eventDaemon(t, "the first")
		var stdout, stderr watched
		ctx, interrupt := context.WithCancel(t.Context())
		done := make(chan int, 1)
		args := []string{"events", "-f", "--socket", "ipfw.sock"}
		if asJSON {
			args = append(args, "--json")
		}
		go func() {
			a := &app{stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr, getenv: func(string) string { return "" }, now: time.Now}
			done <- a.executeContext(ctx, args)
		}()
		stdout.waitFor(t, "the first")
		stop()
		stderr.waitFor(t, "the daemon has stopped; waiting for the next one")
		stop = eventDaemon(t, "the second")
		stdout.waitFor(t, "the second")
		stderr.waitFor(t, "a daemon runs again")
		interrupt()
		if code := <-done; code != exitOK {
			t.Errorf("exit %d: %s", code, stderr.String())
		}
		stop()
		if n := strings.Count(stdout.String(), "the first"); n != 1 {
			t.Errorf("the first event is told %d times", n)
		}
	}
	// Without a daemon there is nothing to wait for.
	if r := ipfw("events", "-f", "--socket", "ipfw.sock"); r.exit != exitError || !strings.Contains(r.stderr.String(), "no ipfw is running") {
		t.Errorf("exit %d: %s", r.exit, r.stderr.String())
	}
}

// TestPlainLog: what a person reads has no escaped quotes, and nothing that a
// terminal would obey.
func TestPlainLog(t *testing.T) {
	var out bytes.Buffer
	a := &app{stderr: &out, stderrTTY: true, getenv: func(string) string { return "" }}
	log, err := a.logger("text")
	if err != nil {
		t.Fatal(err)
	}
	log.Debug("not shown")
	log.With("table", "ipfw").Warn("ike", slog.String("message", `ike "clients" with 192.0.2.2 failed`), slog.Any("error", errors.New("no\x1b[2J answer")), slog.Group("packet", slog.Int("length", 60)))
	_, text, _ := strings.Cut(out.String(), " ")
	if want := "WARN  ike: ike \"clients\" with 192.0.2.2 failed table=ipfw error='no\\x1b[2J answer' packet.length=60\n"; text != want {
		t.Errorf("got  %q\nwant %q", text, want)
	}
	out.Reset()
	a.stderrTTY = false // for programs it stays as it was
	if log, err = a.logger("text"); err != nil {
		t.Fatal(err)
	}
	log.Info("up", "peer", `"b"`)
	if !strings.Contains(out.String(), `level=INFO msg=up peer="\"b\""`) {
		t.Error(out.String())
	}
}
