package host

import (
	"context"
	"log/slog"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
)

// Handle judges one packet that the kernel has sent up. It runs for every
// packet and allocates nothing.
func (d *daemon) Handle(in *engine.Input, out *engine.Output, f packet.Fault) engine.Result {
	in.Now = d.now()
	if f != packet.OK {
		r := d.engine.Malformed(f)
		if d.malformed.allow(in.Now) {
			d.ring.add(&Event{Kind: KindMalformed, Verdict: r.Verdict.String(), Reason: r.Reason.String()})
		}
		return r
	}
	before := d.engine.Policy()
	r := d.engine.Process(in, out)
	if r.Reason.Auditable() && r.Verdict == engine.Discard {
		inner := out.Opened()
		if !in.Arriving || in.SA != "" {
			inner = nil // in is what was opened
		}
		d.audit(before, in, inner, &r)
	}
	if r.Log || r.Reject || r.NAudits > 0 {
		d.note(before, in, &r)
	}
	if !r.Log && !r.Reject && (r.Verdict == engine.Discard || r.NewFlow) {
		d.sample(before, in, &r)
	}
	return r
}

// Now is the time of packets that are opened: one for all that come at once.
func (d *daemon) Now() int64 { return d.now() }

// Unseal opens one ESP packet that came by the UDP socket. Like Handle it runs
// for every packet and allocates nothing.
func (d *daemon) Unseal(in *engine.Input, b []byte, u *engine.Unsealed) engine.Result {
	before := d.engine.Policy()
	r := d.engine.Unseal(in, b, u)
	if r.Reason.Auditable() && r.Verdict == engine.Discard {
		d.audit(before, in, &u.Input, &r)
	}
	return r
}

// audit writes the event of a packet that IPsec has refused. Of one that had
// been opened, it is the inner packet that says what was wrong.
func (d *daemon) audit(p *engine.Policy, in, inner *engine.Input, r *engine.Result) {
	if inner != nil && r.Reason == engine.ReasonWrongSA && inner.SA != "" {
		in = inner
	}
	more, ok := d.repeats.tell(in, r.Reason, d.engine.Generation())
	if !ok || !d.refused.allow(in.Now) {
		return
	}
	e := Event{Kind: KindIPsec, Count: more, Verdict: r.Verdict.String(), Reason: r.Reason.String(), Packet: packetOf(in)}
	if d.engine.Policy() == p {
		if rule := ruleAt(p, r.Rule); rule != nil {
			e.Rule, e.Place = rule.Name, rule.Place
			if b := (*d.keeper.blocks.Load())[rule.With]; b != nil && r.Reason == engine.ReasonNoSA {
				if why := d.exchange.whyNoSA(b, &in.Packet); why != "" {
					e.Message = "no SA can be there for this packet: " + why
				}
			}
		}
	}
	d.ring.add(&e)
}

// note writes the events of a packet. Rules are known by index, and an index
// means something only in the policy that gave it: if a reload came between,
// the event goes without the rule's name rather than with a wrong one.
func (d *daemon) note(p *engine.Policy, in *engine.Input, r *engine.Result) {
	if d.engine.Policy() != p {
		p = &engine.Policy{}
	}
	for _, i := range r.Audits[:r.NAudits] {
		rule := ruleAt(p, i)
		if rule == nil {
			continue
		}
		d.ring.add(&Event{Kind: KindAudit, Verdict: rule.Action.String(), Reason: engine.ReasonRule.String(),
			Rule: rule.Name, Place: rule.Place, Packet: packetOf(in)})
	}
	if !r.Log && !r.Reject {
		return
	}
	e := packetEvent(p, in, r)
	d.ring.add(&e)
}

// packetEvent is the event of one packet.
func packetEvent(p *engine.Policy, in *engine.Input, r *engine.Result) Event {
	e := Event{Kind: KindPacket, Verdict: r.Verdict.String(), Reason: r.Reason.String(),
		Rejected: r.Reject, Packet: packetOf(in)}
	if rule := ruleAt(p, r.Rule); rule != nil {
		e.Rule, e.Place = rule.Name, rule.Place
	}
	return e
}

// ruleAt gives the rule with that index, nil if it is none, or the policy is not
// known.
func ruleAt(p *engine.Policy, i int32) *engine.Rule {
	if p == nil || i < 0 || int(i) >= len(p.Rules) {
		return nil
	}
	return &p.Rules[i]
}

// logEvents writes events to the log until the ring is closed. It reads the
// ring like any other reader, so a log that stalls never stalls a packet.
// Events that others cause are held to the policy's log rate, so that nobody can
// fill a disk from outside. What peers that have authenticated do is held to the
// same rate by itself, of which they may use much at once: all of them may come back
// at the same time.
func (d *daemon) logEvents(rd *ringReader) {
	defer rd.close()
	var others, peers throttle
	next := uint64(1)
	rd.follow(context.Background(), func(es []Event) error {
		for i := range es {
			e := &es[i]
			if e.Seq > next {
				d.o.Logger.Warn("events lost: the log is too slow", "count", e.Seq-next)
			}
			next = e.Seq + 1
			if e.logged {
				continue
			}
			now, rate := int64(e.Time.Sub(d.started)), d.logRate.Load()
			if e.byOthers() && !others.allowAt(rate, 1, now) || e.byPeers() && !peers.allowAt(rate, logPeersAtOnce, now) {
				d.unlogged.Add(1)
				continue
			}
			if n := others.take() + peers.take(); n > 0 {
				d.o.Logger.Warn("events not logged: over the policy's log_rate", "count", n)
			}
			d.logEvent(e)
		}
		return nil
	})
}

// logPeersAtOnce is for how many seconds' worth of the log rate peers that have
// authenticated may be logged at once.
const logPeersAtOnce = 100

func (d *daemon) logEvent(e *Event) {
	level := slog.LevelInfo
	switch e.Kind {
	case KindBadPolicy:
		level = slog.LevelError
	case KindRollback, KindOverflow, KindTable, KindSuppressed, KindIPsec, KindKeys, KindState, KindValidity, KindRoute:
		level = slog.LevelWarn
	case KindIKE:
		if e.warns() {
			level = slog.LevelWarn
		}
	}
	attrs := make([]slog.Attr, 0, 10)
	add := func(key, value string) {
		if value != "" {
			attrs = append(attrs, slog.String(key, value))
		}
	}
	add("verdict", e.Verdict)
	add("reason", e.Reason)
	add("rule", e.Rule)
	add("place", e.Place)
	if e.Packet != (Packet{}) {
		add("packet", e.Packet.String())
	}
	add("message", e.Message)
	if e.Generation != 0 {
		attrs = append(attrs, slog.Uint64("generation", e.Generation))
	}
	d.o.Logger.LogAttrs(context.Background(), level, string(e.Kind), attrs...)
	for _, dg := range e.Diagnostics {
		l := slog.LevelWarn
		if dg.Severity == "error" {
			l = slog.LevelError
		}
		d.o.Logger.LogAttrs(context.Background(), l, string(e.Kind), slog.String("diagnostic", dg.String()))
	}
}
