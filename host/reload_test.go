package host

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/engine"
)

func TestReload(t *testing.T) {
	d := start(t, openPolicy)
	if r := d.kernel.tcp(t, 5432); r.Verdict != engine.Bypass {
		t.Fatalf("the first policy says %s", r.Verdict)
	}
	d.write(t, shutPolicy)
	res, err := d.Reload(t.Context(), ReloadRequest{})
	if err != nil || res.Generation != 2 || res.Unconfirmed != nil {
		t.Fatalf("reload: %+v, %v", res, err)
	}
	if r := d.kernel.tcp(t, 5432); r.Verdict != engine.Discard {
		t.Errorf("a live flow is still let through after the reload: %s by %s", r.Verdict, r.Reason)
	}
	if got := d.kernel.did(); got != "reload discard" {
		t.Errorf("the kernel was told %q", got)
	}
	if s, err := d.Status(t.Context()); err != nil || s.Policy.Generation != 2 {
		t.Errorf("status: %+v, %v", s.Policy, err)
	}
}

func TestHangupReloads(t *testing.T) {
	d := start(t, openPolicy)
	d.write(t, shutPolicy)
	d.hangup <- nil
	if e := d.waitFor(t, KindReload); e.Generation != 2 {
		t.Errorf("event %+v", e)
	}
	d.write(t, badPolicy)
	d.hangup <- nil
	e := d.waitFor(t, KindBadPolicy)
	if e.Generation != 2 || len(e.Diagnostics) == 0 || e.Diagnostics[0].Line != 3 || !strings.Contains(e.String(), "bypas") {
		t.Errorf("event %s", e)
	}
}

func TestBadReloadKeepsTheOldPolicy(t *testing.T) {
	for _, c := range []struct {
		name   string
		text   string
		refuse error
		status int
		says   string
	}{
		{"bad policy", badPolicy, nil, http.StatusUnprocessableEntity, "ipfw.hcl:3"},
		{"empty file", "", nil, http.StatusUnprocessableEntity, "policy"},
		{"the kernel says no", openPolicy, errors.New("no memory"), http.StatusInternalServerError, "no memory"},
	} {
		d := start(t, noSamples(shutPolicy))
		d.kernel.mu.Lock()
		d.kernel.refuse = c.refuse
		d.kernel.mu.Unlock()
		d.write(t, c.text)
		_, err := d.Reload(t.Context(), ReloadRequest{})
		var api *APIError
		if !errors.As(err, &api) || api.Status != c.status || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v", c.name, err)
		}
		if r := d.kernel.tcp(t, 5432); r.Verdict != engine.Discard {
			t.Errorf("%s: the old policy does not stay: %s", c.name, r.Verdict)
		}
		if got := kinds(d.events(t)); got != "start reload-failed" {
			t.Errorf("%s: events %s, want one for the failure", c.name, got)
		}
		if s, err := d.Status(t.Context()); err != nil || s.Policy.Generation != 1 {
			t.Errorf("%s: generation %d, %v", c.name, s.Policy.Generation, err)
		}
	}
}

func TestReloadWithoutConfirmationGoesBack(t *testing.T) {
	d := start(t, openPolicy)
	d.write(t, shutPolicy)
	res, err := d.Reload(t.Context(), ReloadRequest{Confirm: 0.001})
	if err != nil || res.Unconfirmed == nil || res.Unconfirmed.Until.Before(time.Now().Add(-time.Minute)) {
		t.Fatalf("reload: %+v, %v", res, err)
	}
	if e := d.waitFor(t, KindRollback); e.Generation != 3 {
		t.Errorf("event %+v", e)
	}
	if r := d.kernel.tcp(t, 5432); r.Verdict != engine.Bypass {
		t.Errorf("the previous policy is not back: %s", r.Verdict)
	}
	if got := d.kernel.did(); got != "reload discard, reload bypass" {
		t.Errorf("the kernel was told %q", got)
	}
	if _, err := d.Confirm(t.Context()); err == nil || !strings.Contains(err.Error(), "nothing waits") {
		t.Errorf("a confirmation after the rollback: %v", err)
	}
}

func TestConfirm(t *testing.T) {
	d := start(t, openPolicy, func(o *Options) { o.Confirm = time.Hour })
	s, err := d.Status(t.Context())
	if err != nil || s.Unconfirmed == nil || !strings.Contains(s.Unconfirmed.Back, "removes its table") {
		t.Fatalf("status: %+v, %v", s.Unconfirmed, err)
	}
	// A reload does not confirm, and the way back still leads to no table.
	d.write(t, shutPolicy)
	res, err := d.Reload(t.Context(), ReloadRequest{Confirm: 3600})
	if err != nil || res.Unconfirmed == nil || !strings.Contains(res.Unconfirmed.Back, "removes its table") {
		t.Fatalf("reload: %+v, %v", res.Unconfirmed, err)
	}
	if c, err := d.Confirm(t.Context()); err != nil || c.Generation != 2 {
		t.Errorf("confirm: %+v, %v", c, err)
	}
	if s, err = d.Status(t.Context()); err != nil || s.Unconfirmed != nil {
		t.Errorf("status after confirm: %+v, %v", s.Unconfirmed, err)
	}
	d.stop()
	if err := <-d.done; err != nil {
		t.Errorf("a confirmed daemon ended with %v", err)
	}
}

func TestReloadWarnsOfALockOut(t *testing.T) {
	d := start(t, openPolicy)
	d.write(t, shutPolicy)
	res, err := d.Reload(t.Context(), ReloadRequest{SSHConnection: "203.0.113.9 40000 198.51.100.10 22"})
	if err != nil || len(res.Warnings) == 0 || !strings.Contains(res.Warnings[0].String(), "203.0.113.9") {
		t.Errorf("reload: %+v, %v", res, err)
	}
}

func TestBadRequests(t *testing.T) {
	d := start(t, openPolicy)
	for _, c := range []struct {
		method, path string
		body         any
		status       int
	}{
		{"GET", "/v1/nothing", nil, 404},
		{"GET", "/", nil, 404},
		{"GET", "/v1/reload", nil, 404},
		{"DELETE", "/v1/status", nil, 404},
		{"GET", "/v1/events?back=many", nil, 400},
		{"GET", "/v1/events?back=-1", nil, 400},
		{"POST", "/v1/reload", "no object", 400},
		{"POST", "/v1/reload", map[string]any{"confirm_seconds": -1}, 400},
		{"POST", "/v1/reload", map[string]any{"confirm_seconds": 1e300}, 400},
		{"POST", "/v1/reload", map[string]any{"confirm": 60}, 400}, // a name of before: the way back must not be passed over
		{"POST", "/v1/ike/rekey", map[string]any{"name": "south", "wait": 60}, 400},
		{"POST", "/v1/confirm", nil, 409},
	} {
		_, err := d.do(t.Context(), c.method, c.path, c.body)
		var api *APIError
		if !errors.As(err, &api) || api.Status != c.status || api.Message == "" {
			t.Errorf("%s %s: %v, want status %d with a sentence", c.method, c.path, err, c.status)
		}
	}
	if s, err := d.Status(t.Context()); err != nil || s.Policy.Generation != 1 {
		t.Errorf("bad requests changed the policy: %+v, %v", s.Policy, err)
	}
}
