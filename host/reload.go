package host

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/rules"
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
// the one before stays. caller is the process that asks for it, 0 if it is not
// known: what would cut its session needs a way back, or force.
func (d *daemon) reload(q ReloadRequest, caller int) (ReloadResult, error) {
	confirm, began := time.Duration(math.Ceil(q.Confirm*1e9)), time.Now()
	d.change.Lock()
	defer d.change.Unlock()
	if d.stopping {
		return ReloadResult{}, errors.New("ipfw is stopping")
	}
	d.under(time.Now())
	defer d.under(time.Time{})
	d.notify.reloading()
	defer giveBack()
	defer d.notify.ready()

	const stays = "the policy is not good, the one before stays in force"
	next, bad := d.loader.load(q.SSHConnection)
	if bad != nil {
		diags := bad.Diagnostics.All()
		d.ring.add(&Event{Kind: KindBadPolicy, Generation: d.current.generation, Message: stays, Diagnostics: diags})
		return ReloadResult{}, &APIError{Status: http.StatusUnprocessableEntity, Message: stays, Diagnostics: diags}
	}
	previous := d.current
	ready := d.engine.Prepare(&next.Engine)
	cut := d.cutsOwn(d.find.ownSessions(caller, q.SSHConnection), ready)
	if confirm == 0 && !q.Force {
		if err := wouldCut(cut, "the new policy", "say `ipfw reload --confirm 60s`, which takes it back unless you say `ipfw confirm` from a new session, or `ipfw reload --force`"); err != nil {
			return ReloadResult{}, err
		}
	}
	res := ReloadResult{Paths: d.o.Paths, Warnings: append([]Diagnostic{}, next.Warnings...), Changes: next.ChangesFrom(previous.Policy), OwnSessions: cut}
	res.Rules, res.Essential = next.count()
	d.counted() // what has ended is not cut
	res.Flows = d.flowChanges(ready)
	if err := d.enforce(next, ready); err != nil {
		d.ring.add(&Event{Kind: KindBadPolicy, Generation: d.current.generation, Message: err.Error()})
		return ReloadResult{}, err
	}
	res.Warnings = append(res.Warnings, rules.Shorten(d.exchange.ending(time.Now()))...)
	d.ring.add(&Event{Kind: KindReload, Generation: next.generation, Diagnostics: res.Warnings,
		Message: fmt.Sprintf("%s: %s; %s; %s", strings.Join(d.o.Paths, " "), next.summary(), &res.Changes, &res.Flows)})
	d.tellRoutes(next)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.await(confirm, previous)
	d.reloading, d.rolledBack = time.Time{}, time.Time{}
	res.Generation, res.Unconfirmed, res.Took = next.generation, d.unconfirmed(), time.Since(began).Seconds()
	return res, nil
}

// under notes since when a reload is under way, for whoever asks meanwhile.
func (d *daemon) under(since time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reloading = since
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
// d.change is held.
func (d *daemon) enforce(next *loaded, ready *engine.Prepared) error {
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
	d.engine.Put(ready)
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
	d.mu.Lock()
	d.current = next
	d.mu.Unlock()
	d.setLog(next)
	return nil
}

// await starts the wait for a confirmation. A state that nobody confirmed
// stays unconfirmed: the way back leads to the last good one, also over
// several reloads. d.mu is held.
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
		nothing := "nothing waits to be confirmed"
		if !d.reloading.IsZero() {
			nothing += fmt.Sprintf(" yet: a reload has been under way for %s; confirm when its policy is in force", time.Since(d.reloading).Round(time.Second))
		}
		return Confirmation{}, &APIError{Status: http.StatusConflict, Message: nothing}
	}
	d.pending.timer.Stop()
	d.pending = nil
	d.ring.add(&Event{Kind: KindConfirm, Generation: d.current.generation, Message: "the policy in force stays"})
	return Confirmation{Generation: d.current.generation}, nil
}

// rollback takes the way back because nobody confirmed p in time.
func (d *daemon) rollback(p *pending) {
	d.change.Lock()
	defer d.change.Unlock()
	d.mu.Lock()
	if d.pending != p || d.stopping {
		d.mu.Unlock()
		return // confirmed, or replaced, at the last moment
	}
	if p.back == nil {
		d.mu.Unlock()
		d.stop(errNotConfirmed)
		return
	}
	d.pending = nil
	d.mu.Unlock()
	back := *p.back
	if err := d.enforce(&back, d.engine.Prepare(&back.Engine)); err != nil {
		// The new policy may have shut everybody out and the previous one
		// cannot be put back: the only way back left is to go.
		d.stop(fmt.Errorf("%w, and the previous policy could not be put back: %w", errNotConfirmed, err))
		return
	}
	d.mu.Lock()
	d.rolledBack = time.Now()
	d.mu.Unlock()
	d.ring.add(&Event{Kind: KindRollback, Generation: d.current.generation,
		Message: fmt.Sprintf("nobody confirmed in time, the policy loaded at %s is in force again; %s still holds the other one, which the next reload or start puts in force",
			back.at.Format(time.DateTime), strings.Join(d.o.Paths, " "))})
}

// unconfirmed describes what waits to be confirmed, nil if nothing does. d.mu is
// held.
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

// count gives the number of the user's rules and of those of ipfw.
func (l *loaded) count() (own, essential int) {
	for i := range l.Engine.Rules {
		if l.Engine.Rules[i].Essential {
			essential++
		} else {
			own++
		}
	}
	return own, essential
}

// summary says in a few words what is in force.
func (l *loaded) summary() string {
	own, essential := l.count()
	return fmt.Sprintf("%s and %s are in force", counted(own, "rule"), counted(essential, "essential"))
}

func notNil(d []Diagnostic) []Diagnostic {
	if d == nil {
		return []Diagnostic{}
	}
	return d
}
