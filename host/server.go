package host

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/rules"
)

// maxConfirm is the longest time to wait for a confirmation.
const maxConfirm = 24 * time.Hour

// newServer answers on the control socket.
func (d *daemon) newServer() *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { reply(w, d.status(), nil) })
	mux.HandleFunc("GET /v1/policy", func(w http.ResponseWriter, _ *http.Request) { reply(w, d.policyText(), nil) })
	mux.HandleFunc("GET /v1/flows", d.serveFlows)
	mux.HandleFunc("GET /v1/events", d.serveEvents)
	mux.HandleFunc("GET /v1/sas", d.serveSAs)
	mux.HandleFunc("GET /v1/ike", d.serveIKE)
	for _, verb := range []string{"initiate", "rekey", "terminate"} {
		mux.HandleFunc("POST /v1/ike/"+verb, d.serveIKECommand(verb))
	}
	mux.HandleFunc("POST /v1/wireshark-keys", func(w http.ResponseWriter, r *http.Request) {
		form := esp.Wireshark44
		if r.URL.Query().Get("for") == "4.0" {
			form = esp.Wireshark40
		}
		reply(w, d.wiresharkKeys(form), nil)
	})
	mux.HandleFunc("POST /v1/reload", d.serveReload)
	mux.HandleFunc("POST /v1/confirm", func(w http.ResponseWriter, _ *http.Request) {
		c, err := d.confirm()
		reply(w, c, err)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		reply(w, nil, &APIError{Status: http.StatusNotFound, Message: fmt.Sprintf("ipfw has no %s %s", r.Method, r.URL.Path)})
	})
	return &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if cred, err := peer(c); err == nil {
				ctx = context.WithValue(ctx, callerKey{}, int(cred.Pid))
			}
			return ctx
		}}
}

// callerKey is under what the context of a request has the process that asks, an
// int; 0 if it is in another PID namespace.
type callerKey struct{}

// reply writes v, or the error in its place.
func reply(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		api := &APIError{Status: http.StatusInternalServerError, Message: err.Error()}
		errors.As(err, &api)
		w.WriteHeader(api.Status)
		v = api
	}
	json.NewEncoder(w).Encode(v) // the caller who went away is not told
}

// readRequest reads the body of a request. A name in it that is not known is an error:
// it may be what makes the request safe, a way back for instance.
func readRequest(r *http.Request, to any) error {
	in := json.NewDecoder(io.LimitReader(r.Body, 64<<10))
	in.DisallowUnknownFields()
	return in.Decode(to)
}

func (d *daemon) serveReload(w http.ResponseWriter, r *http.Request) {
	var q ReloadRequest
	if err := readRequest(r, &q); err != nil && !errors.Is(err, io.EOF) {
		reply(w, nil, &APIError{Status: http.StatusBadRequest, Message: "the reload request cannot be read: " + err.Error()})
		return
	}
	if !(q.Confirm >= 0 && q.Confirm <= maxConfirm.Seconds()) {
		reply(w, nil, &APIError{Status: http.StatusBadRequest, Message: fmt.Sprintf("confirm is %v seconds, want 0 to %v", q.Confirm, maxConfirm.Seconds())})
		return
	}
	caller, _ := r.Context().Value(callerKey{}).(int)
	res, err := d.reload(q, caller)
	reply(w, res, err)
}

// status is what /v1/status shows.
func (d *daemon) status() Status {
	d.counted()
	key := d.exchange.status()
	var st engine.Stats
	queue := d.firewall.Status(func() { st = d.engine.Stats() })
	p := st.Policy // while a reload is under way it may be the next one's
	written, lost := d.ring.counts()
	now := d.warningsNow()
	d.mu.Lock()
	defer d.mu.Unlock()
	s := Status{
		Version: d.o.Version, PID: os.Getpid(), Started: d.started,
		Uptime: time.Since(d.started).Seconds(), StayShut: d.o.StayShut,
		Policy: PolicyStatus{Paths: d.o.Paths, Generation: d.current.generation,
			Loaded: d.current.at, Warnings: append(append([]Diagnostic{}, d.current.Warnings...), now...)},
		Unconfirmed: d.unconfirmed(),
		Flows:       st.Flows,
		SAs:         d.keeper.sad.Len(),
		Reasons:     make(map[string]uint64, engine.Reasons),
		Carried:     st.Carried,
		JudgedAgain: st.Again,
		Rules:       make([]RuleStatus, len(p.Rules)),
		Defaults:    make(map[string]DefaultStatus, len(p.Default)),
		Sources:     d.sources.top(),
		Queue:       queue,
		IKE:         key,
		Events: EventStatus{Written: written, Lost: lost,
			Suppressed: d.suppressed, Unlogged: d.unlogged.Load()},
	}
	if !d.rolledBack.IsZero() {
		at := d.rolledBack
		s.Policy.RolledBack = &at
	}
	if !d.reloading.IsZero() {
		s.Reloading = time.Since(d.reloading).Seconds()
	}
	for r := range st.Reasons {
		s.Reasons[engine.Reason(r).String()] = st.Reasons[r]
	}
	for i := range p.Rules {
		r, c := &p.Rules[i], st.Rules[i]
		s.Rules[i] = RuleStatus{Name: r.Name, Place: r.Place, Action: r.Action.String(), Audit: r.Audit,
			Essential: r.Essential, Packets: c.Packets, Bytes: c.Bytes, Flows: c.Flows}
	}
	for dir, c := range st.Defaults {
		s.Defaults[engine.Direction(dir).String()] = DefaultStatus{
			Action: p.Default[dir].String(), Packets: c.Packets, Bytes: c.Bytes}
	}
	return s
}

// warningsNow are those of the policy in force that hang on the day, or on routes.
func (d *daemon) warningsNow() []Diagnostic {
	d.mu.Lock()
	current := d.current
	d.mu.Unlock()
	return rules.Shorten(append(d.exchange.ending(time.Now()), unrouted(current.Policy, d.firewall.HasRoute)...))
}

// serveFlows writes the flows, one on a line. Those that come and go while
// it writes may be missed.
func (d *daemon) serveFlows(w http.ResponseWriter, r *http.Request) {
	d.counted()
	w.Header().Set("Content-Type", "application/jsonl")
	buf := bufio.NewWriterSize(w, 32<<10)
	enc := json.NewEncoder(buf)
	d.engine.Flows(d.now(), func(f engine.FlowInfo) bool {
		return enc.Encode(d.flow(&f)) == nil && r.Context().Err() == nil
	})
	buf.Flush()
}

func (d *daemon) flow(f *engine.FlowInfo) Flow {
	out := Flow{
		Direction: f.Dir.String(), Protocol: Protocol(f.Protocol), Source: f.Source, Destination: f.Dest,
		Verdict: f.Verdict.String(), State: f.State,
		Offloaded:  f.Offloaded,
		PacketsOut: f.Packets[0], PacketsIn: f.Packets[1], BytesOut: f.Bytes[0], BytesIn: f.Bytes[1],
		Age: f.Age.Seconds(), Idle: f.Idle.Seconds(), Expires: f.Expires.Seconds(),
	}
	if rule := ruleAt(d.engine.Policy(), f.Rule); rule != nil {
		out.Rule, out.Place = rule.Name, rule.Place
	}
	return out
}

// serveEvents writes the last events that are asked for, and with follow=1
// those that come, until the caller goes away or the daemon ends.
func (d *daemon) serveEvents(w http.ResponseWriter, r *http.Request) {
	back, err := strconv.ParseUint(r.FormValue("back"), 10, 32)
	if err != nil && r.FormValue("back") != "" {
		reply(w, nil, &APIError{Status: http.StatusBadRequest, Message: "back is a number of events, got " + strconv.Quote(r.FormValue("back"))})
		return
	}
	w.Header().Set("Content-Type", "application/jsonl")
	rd := d.ring.reader(back)
	defer rd.close()
	enc := json.NewEncoder(w)
	out := http.NewResponseController(w)
	write := func(es []Event) error {
		for i := range es {
			if err := enc.Encode(&es[i]); err != nil {
				return err
			}
		}
		return out.Flush()
	}
	out.Flush() // the caller may wait for the header
	if r.FormValue("follow") == "1" {
		rd.follow(r.Context(), write)
		return
	}
	batch := make([]Event, min(back, d.ring.size()))
	n, _ := rd.read(batch)
	write(batch[:n])
}
