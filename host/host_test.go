package host

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/nfq"
	"github.com/ipfw/ipfw/packet"
	"golang.org/x/sys/unix"
)

// fakeKernel is the kernel's side in memory: it notes what the daemon asks of
// it and hands it packets.
type fakeKernel struct {
	mu        sync.Mutex
	h         nfq.Handler
	calls     []string
	refuse    error // what Reload answers
	drops     uint64
	renewed   uint64
	changedBy string
	fast      []string // flowtables of others
	apart     bool     // what is forwarded is kept out of them
	notApart  string   // ... or why not
	held      int
	carried   []engine.Carried
	sent      [][]byte
	delivered [][]byte
	fail      chan error
	running   chan struct{}
	slow      chan struct{}    // if it is set, Reload waits for it
	here      []nfq.Connection // what there is
}

func (k *fakeKernel) find() ([]nfq.Connection, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.here, nil
}

func newFakeKernel() *fakeKernel {
	return &fakeKernel{fail: make(chan error, 1), running: make(chan struct{})}
}

func (k *fakeKernel) hold(*loaded, int, *slog.Logger) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.held++
	return true, nil
}

func (k *fakeKernel) open(*loaded, int, *slog.Logger, func(*nfq.Datagram)) (firewall, error) {
	return k, nil
}

func (k *fakeKernel) SendIKE(*nfq.Datagram) error { return nil }

func (k *fakeKernel) SendKeepalive(*nfq.Datagram) error { return nil }

func (k *fakeKernel) Run(ctx context.Context, h nfq.Handler) error {
	k.h = h
	close(k.running)
	select {
	case err := <-k.fail:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (k *fakeKernel) Reload(l *loaded) error {
	k.mu.Lock()
	slow := k.slow
	k.mu.Unlock()
	if slow != nil {
		<-slow
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.refuse != nil {
		return k.refuse
	}
	k.calls = append(k.calls, fmt.Sprintf("reload %s", l.Engine.Default[engine.In]))
	return nil
}

func (k *fakeKernel) Inherited(*packet.Packet) bool            { return false }
func (k *fakeKernel) Master(*engine.Input) (engine.Ends, bool) { return engine.Ends{}, false }

func (k *fakeKernel) Opener(_, _ netip.AddrPort) engine.Opener { return engine.OpenedByEither }

func (k *fakeKernel) Found() []nfq.Connection { return nil }

func (k *fakeKernel) Decided(generation uint32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls = append(k.calls, fmt.Sprintf("decided by %d", generation))
}

func (k *fakeKernel) Carried(live bool, yield func(*engine.Carried)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range k.carried {
		if live || k.carried[i].Ended {
			yield(&k.carried[i])
		}
	}
	return nil
}

func (k *fakeKernel) Close(stayShut bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls = append(k.calls, fmt.Sprintf("close stay=%v", stayShut))
	return nil
}

func (k *fakeKernel) Send(b []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sent = append(k.sent, append([]byte(nil), b...))
	return nil
}

// IsLocal knows the addresses of the two hosts that tests speak of.
func (k *fakeKernel) IsLocal(a netip.Addr) bool {
	return a == netip.MustParseAddr("198.51.100.10") || a == netip.MustParseAddr("203.0.113.9")
}

// Networks knows the network of one interface.
func (k *fakeKernel) Networks(dev string) []netip.Prefix {
	if dev == "eth0" {
		return []netip.Prefix{netip.MustParsePrefix("198.51.100.10/24")}
	}
	return nil
}

// SourceFor knows no way to anybody.
func (k *fakeKernel) SourceFor(netip.Addr) netip.Addr { return netip.Addr{} }

// HasRoute knows the way to everybody but 10.2.0.0/16 and 2001:db8:2::/48.
func (k *fakeKernel) HasRoute(a netip.Addr) bool {
	return !netip.MustParsePrefix("10.2.0.0/16").Contains(a) && !netip.MustParsePrefix("2001:db8:2::/48").Contains(a)
}

// RouterFor knows one router.
func (k *fakeKernel) RouterFor(netip.Addr) netip.Addr { return netip.MustParseAddr("198.51.100.254") }

func (k *fakeKernel) Again([]byte) error { return unix.EMSGSIZE }

func (k *fakeKernel) Deliver(b []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.delivered = append(k.delivered, bytes.Clone(b))
	return nil
}

func (k *fakeKernel) PeerMoved(a, peer netip.Addr) error { return nil }

func (k *fakeKernel) Assign(a netip.Addr, to []netip.Prefix, _ netip.Addr) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls = append(k.calls, fmt.Sprintf("assign %s %v", a, to))
	return nil
}

func (k *fakeKernel) Unassign(a netip.Addr) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls = append(k.calls, fmt.Sprintf("unassign %s", a))
	return nil
}

func (k *fakeKernel) did() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return strings.Join(k.calls, ", ")
}

// tcp sends an inbound SYN up.
func (k *fakeKernel) tcp(t *testing.T, port uint16) engine.Result {
	t.Helper()
	b, err := packet.Build(packet.Spec{
		Src: netip.MustParseAddr("203.0.113.9"), Dst: netip.MustParseAddr("198.51.100.10"),
		Protocol: packet.TCP, SrcPort: 40000, DstPort: port, TCPFlags: packet.SYN, TTL: 64,
	})
	if err != nil {
		t.Fatal(err)
	}
	in := engine.Input{Dir: engine.In, InIf: "eth0"}
	f := packet.Parse(&in.Packet, b, len(b))
	return k.h.Handle(&in, new(engine.Output), f)
}

// testDaemon is a daemon that runs on a fake kernel.
type testDaemon struct {
	kernel *fakeKernel
	*Client
	policy string // path
	hangup chan os.Signal
	stop   context.CancelFunc
	done   chan error
}

const (
	openPolicy = `policy {
  inbound  = "bypass"
  outbound = "bypass"
}
`
	shutPolicy = `policy {
  inbound  = "discard"
  outbound = "bypass"
}
rule "web" {
  action     = "bypass"
  direction  = "in"
  protocol   = "tcp"
  local_port = 80
  log        = true
}
rule "telnet" {
  action     = "discard"
  direction  = "in"
  protocol   = "tcp"
  local_port = 23
  reject     = true
}
rule "watch" {
  action     = "discard"
  direction  = "in"
  protocol   = "tcp"
  local_port = 8080
  audit      = true
}
`
	badPolicy = `policy {
  inbound  = "discard"
  outbound = "bypas"
}
`
)

func start(t *testing.T, text string, change ...func(*Options)) *testDaemon {
	t.Helper()
	dir := t.TempDir()
	d := &testDaemon{kernel: newFakeKernel(), policy: filepath.Join(dir, "ipfw.hcl"),
		hangup: make(chan os.Signal), done: make(chan error, 1)}
	d.write(t, text)
	o := Options{Paths: []string{d.policy}, Socket: filepath.Join(dir, "s"), Reload: d.hangup,
		Version: "test", Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
	for _, f := range change {
		f(&o)
	}
	ready := make(chan struct{})
	o.OnReady = func(Status) { close(ready) }
	var ctx context.Context
	ctx, d.stop = context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.done <- run(ctx, o, opener{find: look{connections: d.kernel.find}, hold: d.kernel.hold, open: d.kernel.open})
	}()
	select {
	case <-ready:
	case err := <-d.done:
		t.Fatalf("the daemon did not start: %v", err)
	}
	<-d.kernel.running
	d.Client = NewClient(o.Socket)
	t.Cleanup(func() { d.Client.Close(); d.stop(); <-ended }) // it writes to the end
	return d
}

func (d *testDaemon) write(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(d.policy, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// events gives all events so far.
func (d *testDaemon) events(t *testing.T) (es []Event) {
	t.Helper()
	if err := d.Events(t.Context(), 1000, false, func(e Event) error { es = append(es, e); return nil }); err != nil {
		t.Fatal(err)
	}
	return es
}

// waitFor waits for an event of a kind.
func (d *testDaemon) waitFor(t *testing.T, k Kind) (found Event) {
	t.Helper()
	stop := errors.New("found")
	if err := d.Events(t.Context(), 1000, true, func(e Event) error {
		if e.Kind == k {
			found = e
			return stop
		}
		return nil
	}); err != stop {
		t.Fatalf("no event %s: %v", k, err)
	}
	return found
}

func kinds(es []Event) string {
	var s []string
	for _, e := range es {
		s = append(s, string(e.Kind))
	}
	return strings.Join(s, " ")
}

func TestStopRemovesTheTable(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Options)
		end    func(*testDaemon)
		did    string
		err    string
	}{
		{"asked to stop", func(*Options) {}, func(d *testDaemon) { d.stop() }, "close stay=false", ""},
		{"asked to stay shut", func(o *Options) { o.StayShut = true }, func(d *testDaemon) { d.stop() }, "close stay=true", ""},
		{"the loop fails", func(*Options) {}, func(d *testDaemon) { d.kernel.fail <- errors.New("broken") }, "close stay=true", "broken"},
		{"the loop ends", func(*Options) {}, func(d *testDaemon) { d.kernel.fail <- nil }, "close stay=true", "ended by itself"},
		{"not confirmed", func(o *Options) { o.Confirm = time.Millisecond }, func(*testDaemon) {}, "close stay=false", "nobody confirmed"},
		{"not confirmed, stay shut", func(o *Options) { o.Confirm = time.Millisecond; o.StayShut = true }, func(*testDaemon) {}, "close stay=false", "nobody confirmed"},
		{"fails before it is confirmed", func(o *Options) { o.Confirm = time.Hour }, func(d *testDaemon) { d.kernel.fail <- errors.New("broken") }, "close stay=false", "broken"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := start(t, openPolicy, c.change)
			c.end(d)
			err := <-d.done
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("ended with %v, want %q", err, c.err)
			}
			if got := d.kernel.did(); got != c.did {
				t.Errorf("the kernel was told %q, want %q", got, c.did)
			}
		})
	}
}

func TestEvents(t *testing.T) {
	d := start(t, noSamples(shutPolicy))
	for _, c := range []struct {
		port    uint16
		verdict engine.Verdict
		event   string // as people read it; empty: none
	}{
		{80, engine.Bypass, `bypass in tcp 203.0.113.9:40000 -> 198.51.100.10:80 syn on eth0 by rule "web" (POLICY:6)`},
		{80, engine.Bypass, ``}, // the flow is known
		{23, engine.Discard, `discard in tcp 203.0.113.9:40000 -> 198.51.100.10:23 syn on eth0 by rule "telnet" (POLICY:13), answered`},
		{8080, engine.Discard, `audit: rule "watch" would discard in tcp 203.0.113.9:40000 -> 198.51.100.10:8080 syn on eth0`},
		{5432, engine.Discard, ``}, // the default, without log
	} {
		before := len(d.events(t))
		if r := d.kernel.tcp(t, c.port); r.Verdict != c.verdict {
			t.Errorf("port %d: %s, want %s", c.port, r.Verdict, c.verdict)
		}
		got := ""
		for _, e := range d.events(t)[before:] {
			got += strings.ReplaceAll(e.String(), d.policy, "POLICY")
		}
		if got != c.event {
			t.Errorf("port %d: event\n%s\nwant\n%s", c.port, got, c.event)
		}
	}
	s, err := d.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Defaults["in"]; got.Action != "discard" || got.Packets != 2 {
		t.Errorf("inbound default: %+v, want discard and 2 packets", got)
	}
	for _, r := range s.Rules {
		if want := map[string]uint64{"web": 1}[r.Name]; !r.Essential && r.Flows != want {
			t.Errorf("rule %s opened %d flows, want %d", r.Name, r.Flows, want)
		}
	}
	var flows []Flow
	if err := d.Flows(t.Context(), func(f Flow) error { flows = append(flows, f); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(flows) != 1 || flows[0].Rule != "web" || flows[0].Destination.Port() != 80 || flows[0].Protocol != packet.TCP {
		t.Errorf("flows %+v, want the one to port 80", flows)
	}
}

func TestMalformedPacketsAreCountedButNotAllLogged(t *testing.T) {
	d := start(t, shutPolicy)
	for range 1000 {
		var in engine.Input
		var out engine.Output
		if r := d.kernel.h.Handle(&in, &out, packet.Truncated); r.Verdict != engine.Discard {
			t.Fatalf("a malformed packet got %s", r.Verdict)
		}
	}
	n := strings.Count(kinds(d.events(t)), "malformed")
	if n < malformedBurst || n > 100 {
		t.Errorf("%d events for 1000 malformed packets", n)
	}
	s, err := d.Status(t.Context())
	if err != nil || s.Reasons["truncated"] != 1000 {
		t.Errorf("%d counted (%v), want 1000", s.Reasons["truncated"], err)
	}
	if e := d.waitFor(t, KindSuppressed); e.Count != uint64(1000-n) {
		t.Errorf("%d told as suppressed, want %d", e.Count, 1000-n)
	}
}

func TestQueueDropsAreTold(t *testing.T) {
	d := start(t, shutPolicy)
	d.kernel.mu.Lock()
	d.kernel.drops = 7
	d.kernel.mu.Unlock()
	if e := d.waitFor(t, KindOverflow); e.Count != 7 {
		t.Errorf("%d told as dropped, want 7", e.Count)
	}
}

func TestHandleDoesNotAllocate(t *testing.T) {
	d := start(t, shutPolicy)
	for _, c := range []struct {
		name string
		port uint16
	}{{"known flow", 80}, {"default", 5432}, {"rejected, with an event", 23}, {"audited, with an event", 8080}} {
		b, err := packet.Build(packet.Spec{Src: netip.MustParseAddr("203.0.113.9"), Dst: netip.MustParseAddr("198.51.100.10"),
			Protocol: packet.TCP, SrcPort: 40000, DstPort: c.port, TCPFlags: packet.SYN, TTL: 64})
		if err != nil {
			t.Fatal(err)
		}
		in := engine.Input{Dir: engine.In}
		var out engine.Output
		if f := packet.Parse(&in.Packet, b, len(b)); f != packet.OK {
			t.Fatal(f)
		}
		d.kernel.h.Handle(&in, &out, packet.OK)
		if n := testing.AllocsPerRun(100, func() { d.kernel.h.Handle(&in, &out, packet.OK) }); n > 0.5 {
			t.Errorf("%s: %v allocations, want 0", c.name, n)
		}
	}
}

// The log is a reader like any other: it gets what happened, and everything
// that happened before the end.
func TestLogHasTheEvents(t *testing.T) {
	var buf strings.Builder
	d := start(t, shutPolicy, func(o *Options) { o.Logger = slog.New(slog.NewJSONHandler(&buf, nil)) })
	d.kernel.tcp(t, 23)
	d.stop()
	if err := <-d.done; err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(buf.String()) {
		var l map[string]any
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		got = append(got, fmt.Sprint(l["level"], " ", l["msg"], " ", l["rule"]))
	}
	if want := "INFO start <nil>, INFO packet telnet, INFO stop <nil>"; strings.Join(got, ", ") != want {
		t.Errorf("logged %q, want %q", got, want)
	}
}

// A caller who never reads must hold up neither packets nor the stop.
func TestSlowReaderHoldsUpNothing(t *testing.T) {
	d := start(t, shutPolicy)
	stuck := make(chan struct{})
	defer close(stuck)
	first := make(chan struct{})
	go d.Events(t.Context(), 10, true, func(Event) error { close(first); <-stuck; return io.EOF })
	<-first
	for range 5 * ringSize {
		d.kernel.tcp(t, 23)
	}
	d.stop()
	if err := <-d.done; err != nil {
		t.Error(err)
	}
}
