package host

import (
	"errors"
	"fmt"
	"net/http"
	"time"
)

// pending is a start or a reload that is not confirmed: the way back and when
// it will be taken.
type pending struct {
	until time.Time
	timer *time.Timer
	// back is the last policy that nobody had to confirm or that somebody
	// did; nil means that ipfw was not there before, and goes away again.
	back *loaded
}

// errNotConfirmed ends a daemon whose start nobody confirmed.
var errNotConfirmed = errors.New("nobody confirmed in time")

// reload reads the policy again and puts it in force, or says why not; then
// the one before stays. A confirm of more than 0 asks for the way back.
func (d *daemon) reload(confirm time.Duration, ssh string) (ReloadResult, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopping {
		return ReloadResult{}, errors.New("ipfw is stopping")
	}
	d.notify.reloading()
	defer giveBack()
	defer d.notify.ready()

	const stays = "the policy is not good, the one before stays in force"
	next, bad := d.loader.load(ssh)
	if bad != nil {
		diags := bad.Diagnostics.All()
		d.ring.add(&Event{Kind: KindBadPolicy, Generation: d.current.generation, Message: stays, Diagnostics: diags})
		return ReloadResult{}, &APIError{Status: http.StatusUnprocessableEntity, Message: stays, Diagnostics: diags}
	}
	previous := d.current
	if err := d.enforce(next); err != nil {
		d.ring.add(&Event{Kind: KindBadPolicy, Generation: d.current.generation, Message: err.Error()})
		return ReloadResult{}, err
	}
	d.ring.add(&Event{Kind: KindReload, Generation: next.generation, Message: next.summary(), Diagnostics: next.Warnings})
	d.await(confirm, previous)
	return ReloadResult{Generation: next.generation, Warnings: notNil(next.Warnings), Unconfirmed: d.unconfirmed()}, nil
}

// enforce puts a policy in force in the engine and then in the kernel. The
// engine goes first: once the kernel has the new generation, every flow comes
// up to be judged again, and must meet the new policy. Until then the kernel
// passes the flows that the old policy allowed, and nothing else. If the
// kernel refuses, the engine goes back. What a policy decides that never comes
// in force is not offloaded, because the kernel's side knows it by another
// number.
//
// SAs are there before the rules that need them, and go after those that did.
func (d *daemon) enforce(next *loaded) error {
	before := *d.keeper.blocks.Load()
	after, err := d.keeper.prepare(next.Policy, d.now())
	if err == nil {
		err = d.keeper.put(after)
	}
	if err != nil {
		return fmt.Errorf("the SAs of the new policy cannot be made, the one before stays in force: %w", err)
	}
	peers, err := d.exchange.prepare(next.Policy)
	if err != nil {
		d.keeper.undo(before, after)
		return fmt.Errorf("the key exchange of the new policy cannot be made, the one before stays in force: %w", err)
	}
	d.carried(true) // counts for the rules that let it pass
	d.engine.Reload(&next.Engine)
	next.decides = d.engine.Generation()
	if err := d.firewall.Reload(next); err != nil {
		d.engine.Reload(&d.current.Engine)
		d.current.decides = d.engine.Generation()
		d.firewall.Decided(d.current.decides)
		d.keeper.undo(before, after)
		d.exchange.undo()
		return fmt.Errorf("the kernel refused the new policy, the one before stays in force: %w", err)
	}
	d.keeper.settle(before, after, d.now())
	d.exchange.commit(peers)
	next.generation = d.current.generation + 1
	d.current = next
	d.logRate.Store(next.Settings.LogRate)
	return nil
}

// await starts the wait for a confirmation. A state that nobody confirmed
// stays unconfirmed: the way back leads to the last good one, also over
// several reloads.
func (d *daemon) await(confirm time.Duration, back *loaded) {
	if confirm <= 0 {
		return
	}
	if d.pending != nil {
		d.pending.timer.Stop()
		back = d.pending.back
	}
	p := &pending{until: time.Now().Add(confirm), back: back}
	p.timer = time.AfterFunc(confirm, func() { d.rollback(p) })
	d.pending = p
}

// confirm makes the policy in force the one to go back to.
func (d *daemon) confirm() (Confirmation, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pending == nil {
		return Confirmation{}, &APIError{Status: http.StatusConflict, Message: "nothing waits to be confirmed"}
	}
	d.pending.timer.Stop()
	d.pending = nil
	d.ring.add(&Event{Kind: KindConfirm, Generation: d.current.generation, Message: "the policy in force stays"})
	return Confirmation{Generation: d.current.generation}, nil
}

// rollback takes the way back because nobody confirmed p in time.
func (d *daemon) rollback(p *pending) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pending != p || d.stopping {
		return // confirmed, or replaced, at the last moment
	}
	if p.back == nil {
		d.stop(errNotConfirmed)
		return
	}
	d.pending = nil
	back := *p.back
	if err := d.enforce(&back); err != nil {
		// The new policy may have shut everybody out and the previous one
		// cannot be put back: the only way back left is to go.
		d.stop(fmt.Errorf("%w, and the previous policy could not be put back: %w", errNotConfirmed, err))
		return
	}
	d.ring.add(&Event{Kind: KindRollback, Generation: d.current.generation,
		Message: "nobody confirmed in time, the previous policy is in force again"})
}

// unconfirmed describes what waits to be confirmed, nil if nothing does.
func (d *daemon) unconfirmed() *Unconfirmed {
	if d.pending == nil {
		return nil
	}
	back := "ipfw stops and removes its table"
	if d.pending.back != nil {
		back = "the policy loaded at " + d.pending.back.at.Format(time.DateTime) + " comes back"
	}
	return &Unconfirmed{Until: d.pending.until, Back: back}
}

// summary says in a few words what is in force.
func (l *loaded) summary() string {
	n, essential := 0, 0
	for i := range l.Engine.Rules {
		if l.Engine.Rules[i].Essential {
			essential++
		} else {
			n++
		}
	}
	return fmt.Sprintf("%d rules and %d essentials are in force", n, essential)
}

func notNil(d []Diagnostic) []Diagnostic {
	if d == nil {
		return []Diagnostic{}
	}
	return d
}
