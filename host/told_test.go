package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/nfq"
	"golang.org/x/sys/unix"
)

// While the kernel takes its time over a reload, status and confirm answer, and
// the reload is told as done when it is.
func TestStatusAnswersDuringAReload(t *testing.T) {
	d := start(t, openPolicy)
	slow := make(chan struct{})
	d.kernel.mu.Lock()
	d.kernel.slow = slow
	d.kernel.mu.Unlock()
	d.write(t, shutPolicy)
	type outcome struct {
		ReloadResult
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		r, err := d.Reload(context.Background(), ReloadRequest{Confirm: 3600})
		done <- outcome{r, err}
	}()
	for { // until it is under way
		s, err := d.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if s.Reloading > 0 {
			if s.Policy.Generation != 1 {
				t.Errorf("generation %d during the reload", s.Policy.Generation)
			}
			break
		}
	}
	if _, err := d.Confirm(t.Context()); err == nil || !strings.Contains(err.Error(), "under way") {
		t.Errorf("confirm during the reload: %v", err)
	}
	close(slow)
	if r := <-done; r.err != nil || r.Generation != 2 || r.Unconfirmed == nil {
		t.Errorf("reload: %+v", r)
	}
	if s, err := d.Status(t.Context()); err != nil || s.Reloading != 0 || s.Policy.Generation != 2 {
		t.Errorf("status afterwards: %+v, %v", s.Policy, err)
	}
	if c, err := d.Confirm(t.Context()); err != nil || c.Generation != 2 {
		t.Errorf("confirm afterwards: %+v, %v", c, err)
	}
}

// A reload tells the files, what has changed, and which flows it cuts.
func TestReloadTellsWhatItDoes(t *testing.T) {
	d := start(t, shutPolicy)
	if r := d.kernel.tcp(t, 80); r.Verdict != engine.Bypass {
		t.Fatalf("port 80: %s", r.Verdict)
	}
	d.write(t, strings.Replace(shutPolicy, "local_port = 80\n", "local_port = 81\n", 1)+"rule \"last\" {\n  action = \"bypass\"\n  direction = \"out\"\n}\n")
	r, err := d.Reload(t.Context(), ReloadRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Rules != 4 || r.Essential == 0 || len(r.Paths) != 1 || r.Paths[0] != d.policy {
		t.Errorf("reload: %+v", r)
	}
	if got, want := r.Changes.String(), `added rule "last"; changed rule "web"`; got != want {
		t.Errorf("changes %q, want %q", got, want)
	}
	const flow = "in tcp 203.0.113.9:40000 -> 198.51.100.10:80, by (inbound default)"
	if r.Flows.Cut != 1 || len(r.Flows.List) != 1 || r.Flows.List[0].String() != flow {
		t.Errorf("flows: %+v, want %s", r.Flows, flow)
	}
	e := d.waitFor(t, KindReload)
	for _, want := range []string{d.policy, "4 rules and", `added rule "last"`, "1 flow is cut"} {
		if !strings.Contains(e.Message, want) {
			t.Errorf("event %q does not say %q", e.Message, want)
		}
	}
	if r, err = d.Reload(t.Context(), ReloadRequest{}); err != nil || r.Changes.String() != "nothing has changed" || r.Flows.String() != "no flow is cut" {
		t.Errorf("the same again: %+v, %v", r, err)
	}
}

// mySocket is a socket that this process has open, as the kernel lists it.
func mySocket(t *testing.T) uint32 {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	var st unix.Stat_t
	if err := unix.Fstat(fds[0], &st); err != nil {
		t.Fatal(err)
	}
	return uint32(st.Ino)
}

// What would cut the session of whoever asks is refused, unless there is a way
// back or force; the session is found by the process that asks.
func TestReloadKeepsItsCaller(t *testing.T) {
	own := nfq.Connection{Local: netip.MustParseAddrPort("198.51.100.10:22"), Remote: netip.MustParseAddrPort("192.0.2.7:50390"),
		Opener: engine.OpenedByRemote, Inode: mySocket(t)}
	other := nfq.Connection{Local: own.Local, Remote: netip.MustParseAddrPort("192.0.2.8:50390"), Opener: engine.OpenedByRemote, Inode: own.Inode + 1<<20}
	own6 := own
	own6.Local, own6.Remote = netip.MustParseAddrPort("[2001:db8::10]:22"), netip.MustParseAddrPort("[2001:db8::7]:50390")
	agent := own
	agent.Opener = engine.OpenedByLocal
	const noOut = "policy {\n  inbound  = \"bypass\"\n  outbound = \"discard\"\n}\n"
	for _, row := range []struct {
		name, policy string
		here         []nfq.Connection
		ssh          string
		want         string // what the refusal names; empty: there is none
	}{
		{"own session", shutPolicy, []nfq.Connection{other, own}, "", "in tcp 192.0.2.7:50390 -> 198.51.100.10:22, by (inbound default)"},
		{"own session, IPv6", shutPolicy, []nfq.Connection{own6}, "", "in tcp [2001:db8::7]:50390 -> [2001:db8::10]:22, by (inbound default)"},
		{"an agent that this host has called", noOut, []nfq.Connection{agent}, "", "out tcp 198.51.100.10:22 -> 192.0.2.7:50390, by (outbound default)"},
		{"an agent goes on", shutPolicy, []nfq.Connection{agent}, "", ""},
		{"of others", shutPolicy, []nfq.Connection{other}, "", ""},
		{"goes on", strings.Replace(shutPolicy, "local_port = 80", "local_port = 22", 1), []nfq.Connection{own}, "", ""},
		{"by the environment", shutPolicy, []nfq.Connection{other}, "192.0.2.8 50390 198.51.100.10 22", "in tcp 192.0.2.8:50390"},
		{"by an environment that is out of date", shutPolicy, []nfq.Connection{other}, "192.0.2.9 50390 198.51.100.10 22", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			d := start(t, openPolicy)
			d.kernel.mu.Lock()
			d.kernel.here = row.here
			d.kernel.mu.Unlock()
			d.write(t, row.policy)
			q := ReloadRequest{SSHConnection: row.ssh}
			r, err := d.Reload(t.Context(), q)
			if row.want == "" {
				if err != nil || r.Generation != 2 {
					t.Errorf("reload: %+v, %v", r, err)
				}
				return
			}
			var api *APIError
			if !errors.As(err, &api) || api.Status != http.StatusConflict || !strings.Contains(api.Message, row.want) || !strings.Contains(api.Message, "--force") {
				t.Fatalf("reload: %v, want %q", err, row.want)
			}
			if s, err := d.Status(t.Context()); err != nil || s.Policy.Generation != 1 || d.kernel.did() != "" {
				t.Errorf("a refused reload changed something: %+v, %v", s.Policy, err)
			}
			q.Confirm = 3600
			if r, err = d.Reload(t.Context(), q); err != nil || len(r.OwnSessions) != 1 || !strings.Contains(r.OwnSessions[0], row.want) {
				t.Errorf("with a way back: %+v, %v", r, err)
			}
			d.write(t, openPolicy)
			if _, err = d.Reload(t.Context(), ReloadRequest{}); err != nil {
				t.Fatal(err)
			}
			d.write(t, row.policy)
			q.Confirm, q.Force = 0, true
			if r, err = d.Reload(t.Context(), q); err != nil || r.Generation != 4 || len(r.OwnSessions) != 1 {
				t.Errorf("with force: %+v, %v", r, err)
			}
			// It is cut already: another policy that does not let it in cuts nothing.
			if r, err = d.Reload(t.Context(), ReloadRequest{SSHConnection: row.ssh}); err != nil || len(r.OwnSessions) != 0 {
				t.Errorf("once more: %+v, %v", r, err)
			}
		})
	}
}

// A start that would cut the session it comes from shuts nothing.
func TestStartKeepsItsCaller(t *testing.T) {
	k := newFakeKernel()
	k.here = []nfq.Connection{{Local: netip.MustParseAddrPort("198.51.100.10:22"), Remote: netip.MustParseAddrPort("192.0.2.7:50390"),
		Opener: engine.OpenedByRemote, Inode: mySocket(t)}}
	path := filepath.Join(t.TempDir(), "p.hcl")
	if err := os.WriteFile(path, []byte(shutPolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name   string
		change func(*Options)
		runs   bool
	}{
		{"refused", func(*Options) {}, false},
		{"confirm", func(o *Options) { o.Confirm = time.Hour }, true},
		{"force", func(o *Options) { o.Force = true }, true},
	} {
		o := Options{Paths: []string{path}, Socket: filepath.Join(t.TempDir(), "s")}
		ctx, cancel := context.WithCancel(t.Context())
		o.OnReady = func(Status) { cancel() }
		row.change(&o)
		k.running, k.held = make(chan struct{}), 0
		err := run(ctx, o, opener{find: look{connections: k.find}, hold: k.hold, open: k.open})
		cancel()
		switch {
		case row.runs && err != nil:
			t.Errorf("%s: %v", row.name, err)
		case !row.runs && (err == nil || !strings.Contains(err.Error(), "in tcp 192.0.2.7:50390 -> 198.51.100.10:22") || k.held > 0):
			t.Errorf("%s: %v, shut %d times", row.name, err, k.held)
		}
	}
}

// After a rollback it is said that the file holds another policy, until it is read
// again.
func TestRollbackTellsOfTheFile(t *testing.T) {
	d := start(t, openPolicy)
	d.write(t, shutPolicy)
	if _, err := d.Reload(t.Context(), ReloadRequest{Confirm: 0.01}); err != nil {
		t.Fatal(err)
	}
	e := d.waitFor(t, KindRollback)
	if !strings.Contains(e.Message, d.policy+" still holds the other one") {
		t.Errorf("event %q", e.Message)
	}
	if s, err := d.Status(t.Context()); err != nil || s.Policy.RolledBack == nil {
		t.Errorf("status: %+v, %v", s.Policy, err)
	}
	if _, err := d.Reload(t.Context(), ReloadRequest{}); err != nil {
		t.Fatal(err)
	}
	if s, err := d.Status(t.Context()); err != nil || s.Policy.RolledBack != nil {
		t.Errorf("status after a reload: %+v, %v", s.Policy, err)
	}
}

// A daemon that takes its time: a question says so, and a change waits for it.
func TestSlowDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan string, 64)
	release := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { <-release; json.NewEncoder(w).Encode(Status{PID: 1}) })
	mux.HandleFunc("POST /v1/reload", func(w http.ResponseWriter, _ *http.Request) {
		<-release
		json.NewEncoder(w).Encode(ReloadResult{Generation: 7})
	})
	server := &http.Server{Handler: mux}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	var once sync.Once
	defer once.Do(func() { close(release) })
	client := func() *Client {
		c := NewClient(path)
		c.silent, c.long = 10*time.Millisecond, 50*time.Millisecond
		c.Slow = func(text string) { told <- text }
		return c
	}
	type outcome struct {
		text string
		err  error
	}
	done := make(chan outcome, 2)
	go func() {
		s, err := client().Status(t.Context())
		done <- outcome{fmt.Sprint("status ", s.PID), err}
	}()
	if text := <-told; !strings.Contains(text, "has not answered for 10ms") || !strings.Contains(text, fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("status: %s", text)
	}
	go func() {
		r, err := client().Reload(t.Context(), ReloadRequest{})
		done <- outcome{fmt.Sprint("reload ", r.Generation), err}
	}()
	for text := range told {
		if strings.Contains(text, "at the reload for") && strings.Contains(text, "Ctrl-C") {
			break
		}
	}
	once.Do(func() { close(release) })
	got := map[string]bool{}
	for range 2 {
		o := <-done
		got[o.text] = o.err == nil
	}
	if !got["status 1"] || !got["reload 7"] {
		t.Errorf("outcomes: %v", got)
	}
	// A question has an end.
	if err := client().callFor(t.Context(), 30*time.Millisecond, "GET", "/v1/status", nil, &Status{}); err != nil {
		t.Errorf("an answer that is there: %v", err)
	}
}

// A daemon that never answers a question is told of in a sentence.
func TestSilentDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // nobody accepts
	err = NewClient(path).callFor(t.Context(), 50*time.Millisecond, "GET", "/v1/status", nil, &Status{})
	var silent *SilentError
	if !errors.As(err, &silent) || silent.PID != os.Getpid() || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("%v", err)
	}
}

func TestChangesOfTheTableAreTold(t *testing.T) {
	d := start(t, shutPolicy)
	d.kernel.mu.Lock()
	d.kernel.renewed, d.kernel.changedBy = 2, "nft (process 7) deleted it"
	d.kernel.mu.Unlock()
	stop := errors.New("found")
	told := make(map[string]uint64)
	if err := d.Events(t.Context(), 1000, true, func(e Event) error {
		if e.Kind == KindTable {
			told[strings.SplitAfter(e.Message, "put back")[0]] = e.Count
		}
		if len(told) == 2 {
			return stop
		}
		return nil
	}); err != stop {
		t.Fatal(err)
	}
	const changed = "somebody else has changed the nftables table (nft (process 7) deleted it); it has been put back"
	if told[changed] != 2 || told["somebody else has changed the nftables table (nft (process 7) deleted it), and it cannot be put back"] != 1 {
		t.Errorf("told: %v", told)
	}
}

// TestFlowtablesAreTold: flowtables of others, which carry flows past the policy, are
// an event when they come, when they change, and when they go, and when a policy
// protects: in one sentence what it means and what to do.
func TestFlowtablesAreTold(t *testing.T) {
	d := start(t, shutPolicy)
	for _, row := range []struct {
		there    []string
		apart    bool
		notApart string
		want     string
	}{
		{[]string{"ft of table fast (eth0)"}, false, "", "there are flowtables of others: ft of table fast (eth0); what they carry passes by this policy"},
		{[]string{"ft of table fast (eth0)", "g of table y (eth1)"}, false, "", "flowtables of others: ft of table fast (eth0), g of table y (eth1);"},
		{[]string{"g of table y (eth1)"}, true, "", "g of table y (eth1); they get no flow that begins now"},
		{[]string{"g of table y (eth1)"}, false, "no module", "g of table y (eth1); PROTECTED TRAFFIC MAY LEAVE IN THE CLEAR by them, because what is forwarded cannot be kept out of them: remove them, or what adds flows to them (flow add): no module"},
		{nil, true, "", "no flowtable of others is there any more"},
	} {
		d.kernel.mu.Lock()
		d.kernel.fast, d.kernel.apart, d.kernel.notApart = row.there, row.apart, row.notApart
		d.kernel.mu.Unlock()
		stop := errors.New("found")
		if err := d.Events(t.Context(), 1000, true, func(e Event) error {
			if e.Kind == KindTable && strings.Contains(e.Message, row.want) {
				return stop
			}
			return nil
		}); err != stop {
			t.Fatalf("%q is not told: %v", row.want, err)
		}
	}
}
