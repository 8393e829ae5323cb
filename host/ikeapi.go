package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/ipfw/ipfw/ike"
)

// IKESA is one IKE SA: a peer that has proved who it is, or is about to. There
// are no keys in it.
type IKESA struct {
	Peer string `json:"peer"` // the ike block; empty until the peer has proved who it is
	// State is "connecting" or "up".
	State     string         `json:"state"`
	Initiator bool           `json:"initiator"` // this host called
	Local     netip.AddrPort `json:"local"`
	Remote    netip.AddrPort `json:"remote"`
	LocalID   string         `json:"local_id,omitempty"`
	RemoteID  string         `json:"remote_id,omitempty"`
	SPIi      string         `json:"spi_i"` // hexadecimal: JSON's numbers have 53 bits
	SPIr      string         `json:"spi_r"`
	Suite     string         `json:"suite,omitempty"`
	// Age is in seconds, since both had proved who they are; while it is
	// "connecting", since it began.
	Age float64 `json:"age_seconds"`
	// Rekey is in how many seconds it will be rekeyed; 0: under way.
	Rekey  float64 `json:"rekey_seconds"`
	NAT    bool    `json:"nat"`    // a NAT is in the way: ESP travels in UDP
	MOBIKE bool    `json:"mobike"` // survives a change of address
	// FullTranscript says that both sides have authenticated both IKE_SA_INIT
	// messages, so that nobody between them has weakened what they agreed on.
	FullTranscript bool `json:"full_transcript_auth"`
	// Assigned are addresses that the peer gave this host, Leased such as
	// this host gave the peer.
	Assigned []netip.Addr `json:"assigned,omitempty"`
	Leased   []netip.Addr `json:"leased,omitempty"`
	Children []IKEChild   `json:"children"`
}

// IKEChild is a pair of SAs that an IKE SA has agreed on; /v1/sas says what they
// carry.
type IKEChild struct {
	Name   string   `json:"name"`  // the ipsec block
	State  string   `json:"state"` // "up", "replaced", "deleting"
	SPIIn  uint32   `json:"spi_in"`
	SPIOut uint32   `json:"spi_out"`
	Mode   string   `json:"mode"`
	Using  bool     `json:"using"`         // what this host sends goes by it
	Local  []string `json:"local"`         // traffic selectors
	Remote []string `json:"remote"`        // the same of the far side
	Rekey  float64  `json:"rekey_seconds"` // in seconds; 0: under way
}

// IKEStatus counts what the key exchange has done since it began.
type IKEStatus struct {
	// Now: IKE SAs, those of them whose peer has not proved who it is yet,
	// and SA pairs agreed on.
	SAs      int `json:"sas"`
	HalfOpen int `json:"half_open"`
	Children int `json:"children"`
	// Up is how many IKE SAs have come up, Failures what has failed, by
	// reason.
	Up       uint64            `json:"up"`
	Failures map[string]uint64 `json:"failures"`
	// Failed are the last failures of those peers with which nothing has come
	// up since.
	Failed []IKEFailure `json:"failed,omitempty"`
	// Cookies is how many calls were answered with a cookie, because too
	// many were under way; Dropped datagrams were of no use; Lost ones came
	// faster than they could be read, LostCalls of them from strangers who
	// had just begun; Unsent ones the kernel did not take.
	Cookies     uint64 `json:"cookies"`
	Retransmits uint64 `json:"retransmits"`
	Dropped     uint64 `json:"dropped"`
	Lost        uint64 `json:"lost"`
	LostCalls   uint64 `json:"lost_calls"`
	Unsent      uint64 `json:"unsent"`
	// Held packets wait for an SA now; HeldSent have gone out sealed after
	// they had waited, HeldLost have not, for want of room or of an SA.
	Held     int    `json:"held"`
	HeldSent uint64 `json:"held_sent"`
	HeldLost uint64 `json:"held_lost"`
	// EarlyOpened packets came sealed before the answer that brought their
	// keys, and were opened after it; EarlyLost were not.
	EarlyOpened uint64 `json:"early_opened"`
	EarlyLost   uint64 `json:"early_lost"`
}

// status counts; nil while there is nothing to count.
func (x *exchange) status() *IKEStatus {
	s := x.server.Load()
	if s == nil {
		return nil
	}
	st := x.stats(s)
	out := &IKEStatus{SAs: st.SAs, HalfOpen: st.HalfOpen, Children: st.Children, Up: st.Up, Failures: map[string]uint64{},
		Cookies: st.Cookies, Retransmits: st.Retransmits, Dropped: st.Dropped,
		Held: x.hold.waiting(), HeldSent: x.hold.released.Load(), HeldLost: x.hold.lost.Load(),
		EarlyOpened: x.early.opened.Load(), EarlyLost: x.early.lost.Load(), Failed: x.failed.list(time.Now(), x.inForce())}
	lost := s.Losses()
	out.Lost, out.LostCalls, out.Unsent = lost.Received, lost.Calls, lost.Unsent
	for f := 1; f < ike.Failures; f++ {
		out.Failures[ike.Failure(f).String()] = st.Failures[f]
	}
	return out
}

// stats asks the key exchange for its counters. One that has much to do, as with
// the peers of a new policy, does not hold up who asks: then they are those that
// it gave last.
func (x *exchange) stats(s *ike.Server) ike.Stats {
	answer := make(chan ike.Stats, 1)
	if s.Post(func(c *ike.Core, _ time.Time) ike.Output { answer <- c.Stats(); return ike.Output{} }) {
		select {
		case st := <-answer:
			x.counts.Store(&st)
			return st
		case <-time.After(answerWithin):
		}
	}
	if last := x.counts.Load(); last != nil {
		return *last
	}
	return ike.Stats{}
}

// IKERequest asks for something to be done with a peer.
type IKERequest struct {
	// Name is an ike block, with all that belongs to it, or an ipsec block.
	Name string `json:"name"`
	// Wait is how many seconds to wait for the outcome, 0 to 600.
	Wait float64 `json:"wait_seconds"`
}

// IKEResult is what came of a request.
type IKEResult struct {
	Message string `json:"message"`
	// Event is how it went; absent where there was nothing to do, or the
	// time was over before it was done.
	Event *IKEEvent `json:"event,omitempty"`
}

// ikeSAs lists the IKE SAs.
func (x *exchange) ikeSAs() (list []IKESA) {
	s := x.server.Load()
	if s == nil {
		return nil
	}
	var spis []uint64
	var status []ike.IKEStatus
	now := time.Now()
	if s.Call(func(c *ike.Core, _ time.Time) ike.Output { spis = c.SPIs(); return ike.Output{} }) != nil {
		return nil
	}
	for part := range slices.Chunk(spis, 512) {
		if s.Call(func(c *ike.Core, _ time.Time) ike.Output {
			status = append(status, c.StatusOf(part)...)
			return ike.Output{}
		}) != nil {
			return nil
		}
	}
	until := func(t time.Time) float64 {
		if t.IsZero() {
			return 0
		}
		return max(0, t.Sub(now).Seconds())
	}
	for i := range status {
		k := &status[i]
		o := IKESA{
			Peer: k.Peer, State: "connecting", Initiator: k.Initiator, Local: k.Local, Remote: k.Remote,
			SPIi: fmt.Sprintf("%016x", k.SPIi), SPIr: fmt.Sprintf("%016x", k.SPIr), Suite: k.Suite,
			Rekey: until(k.Rekey), NAT: k.NAT, MOBIKE: k.MOBIKE, FullTranscript: k.Transcript, Assigned: k.Assigned, Leased: k.Leased, Children: []IKEChild{},
		}
		o.Age = max(0, now.Sub(k.Since).Seconds())
		if k.Up {
			o.State = "up"
		}
		if !k.LocalID.IsZero() {
			o.LocalID = k.LocalID.String()
		}
		if !k.RemoteID.IsZero() {
			o.RemoteID = k.RemoteID.String()
		}
		for j := range k.Children {
			c := &k.Children[j]
			o.Children = append(o.Children, IKEChild{Name: c.Name, State: c.State, SPIIn: c.SPIIn, SPIOut: c.SPIOut,
				Mode: c.Mode.String(), Using: c.Using, Local: texts(c.LocalTS), Remote: texts(c.RemoteTS), Rekey: until(c.Rekey)})
		}
		list = append(list, o)
	}
	return list
}

func texts(list []ike.TrafficSelector) []string {
	out := make([]string, len(list))
	for i, t := range list {
		out[i] = t.String()
	}
	return out
}

// blockNamed finds what a name of the policy means: an ike block and, if it is
// the name of an ipsec block, that. An ike block goes first.
func (x *exchange) blockNamed(name string) (peer, child string, err error) {
	blocks := x.inForce()
	for _, b := range blocks {
		if b.ike != nil && b.ike.Name == name {
			return name, "", nil
		}
	}
	b := blocks[name]
	switch {
	case b == nil:
		return "", "", &APIError{Status: http.StatusNotFound, Message: fmt.Sprintf("the policy in force has no ike and no ipsec block %q", name)}
	case b.ike == nil:
		return "", "", &APIError{Status: http.StatusBadRequest, Message: fmt.Sprintf("the keys of ipsec %q are set by hand: there is nobody to agree on them with", name)}
	}
	return b.ike.Name, name, nil
}

// command does what an administrator asks for, and waits for what comes of it.
func (x *exchange) command(ctx context.Context, verb string, q IKERequest) (IKEResult, error) {
	peer, child, err := x.blockNamed(q.Name)
	if err != nil {
		return IKEResult{}, err
	}
	s := x.server.Load()
	if s == nil {
		return IKEResult{}, &APIError{Status: http.StatusConflict, Message: fmt.Sprintf("no rule uses what %q would protect: nothing is agreed on", q.Name)}
	}
	rd := x.d.ring.reader(0) // before the command, so that no event is missed
	defer rd.close()
	idle, bad, err := x.start(s, verb, peer, child)
	switch {
	case err != nil:
		return IKEResult{}, err
	case bad != nil:
		return IKEResult{}, &APIError{Status: http.StatusConflict, Message: bad.Error()}
	case idle != "":
		return IKEResult{Message: idle}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(q.Wait*float64(time.Second)))
	defer cancel()
	var got *IKEEvent
	found := errors.New("found")
	err = rd.follow(ctx, func(list []Event) error {
		for i := range list {
			e := list[i].IKE
			if e == nil || e.stranger || e.Peer != peer || child != "" && e.Child != child && e.Child != "" {
				continue // or of somebody's call that does not get as far as what is asked for here
			}
			if e.Failure != "" || concludes(verb, child, e.What) {
				got = e
				return found
			}
		}
		return nil
	})
	switch {
	case got == nil && ctx.Err() != nil:
		return IKEResult{Message: "it is under way: `ipfw events` shows what comes of it"}, nil
	case got == nil:
		return IKEResult{}, err
	case got.Failure != "":
		return IKEResult{}, &APIError{Status: http.StatusBadGateway, Message: got.String()}
	}
	return IKEResult{Message: got.String(), Event: got}, nil
}

// concludes says that an event is the outcome of a command.
func concludes(verb, child, what string) bool {
	switch verb {
	case "initiate":
		return what == ike.ChildUp.String()
	case "rekey":
		return child != "" && what == ike.ChildRekeyed.String() || child == "" && what == ike.IKERekeyed.String()
	}
	return child != "" && what == ike.ChildDown.String() || what == ike.IKEDown.String()
}

// start begins a command. idle says why there is nothing to wait for, bad why it
// cannot be done.
func (x *exchange) start(s *ike.Server, verb, peer, child string) (idle string, bad, err error) {
	err = s.Call(func(c *ike.Core, now time.Time) (o ike.Output) {
		here, up := c.Holds(peer)
		switch {
		case verb == "initiate":
			o, idle, bad = x.initiate(c, now, peer, child, up)
			return o
		case here == 0:
			idle = fmt.Sprintf("there is no IKE SA of ike %q", peer)
		case child != "" && !up[child]:
			idle = fmt.Sprintf("ike %q has no SAs of ipsec %q", peer, child)
		case verb == "rekey":
			return c.Rekey(now, peer, child)
		default:
			return c.Terminate(now, peer, child)
		}
		return o
	})
	return idle, bad, err
}

// initiate makes the children of a peer, or one of them, that are not there.
func (x *exchange) initiate(c *ike.Core, now time.Time, peer, child string, up map[string]bool) (o ike.Output, idle string, bad error) {
	asked := false
	for name, b := range x.inForce() {
		if b.ike == nil || b.ike.Name != peer || child != "" && name != child || up[name] || len(b.rules) == 0 {
			continue
		}
		part, err := c.Initiate(now, ike.Call{Peer: peer, Child: name, Local: portless(b.LocalEndpoint), Remote: portless(b.RemoteEndpoint)})
		o.Actions = append(o.Actions, part.Actions...)
		o.Send = append(o.Send, part.Send...)
		o.Events = append(o.Events, part.Events...)
		if err != nil {
			bad = err
			continue
		}
		asked = true
	}
	if asked {
		return o, "", nil
	}
	if bad == nil {
		idle = "it is up already"
	}
	return o, idle, bad
}

// serveIKE writes the IKE SAs, one on a line.
func (d *daemon) serveIKE(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/jsonl")
	enc := json.NewEncoder(w)
	for _, s := range d.exchange.ikeSAs() {
		if enc.Encode(s) != nil {
			return // the caller went away
		}
	}
}

// maxWait is how long a command may wait for its outcome, in seconds.
const maxWait = 600

// serveIKECommand serves one of the commands.
func (d *daemon) serveIKECommand(verb string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q IKERequest
		if err := readRequest(r, &q); err != nil {
			reply(w, nil, &APIError{Status: http.StatusBadRequest, Message: "the request cannot be read: " + err.Error()})
			return
		}
		if !(q.Wait >= 0 && q.Wait <= maxWait) {
			reply(w, nil, &APIError{Status: http.StatusBadRequest, Message: fmt.Sprintf("want a name, and a wait of 0 to %d seconds", maxWait)})
			return
		}
		res, err := d.exchange.command(r.Context(), verb, q)
		reply(w, res, err)
	}
}
