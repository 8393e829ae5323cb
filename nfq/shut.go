package nfq

import (
	"errors"
	"runtime"
	"slices"

	"github.com/google/nftables"
)

// Shut puts the table in force in the form that lets nothing pass but loopback,
// and leaves it so. It takes neither queues nor ports, and needs nothing that
// somebody else could be in the way of. The table of a Firewall that is open is
// an error.
func Shut(cfg Config) error {
	_, err := hold(cfg, false)
	return err
}

// Hold is Shut for a host that has no table yet; the table that an earlier
// daemon has left stays as it is, because it holds already. It says whether
// there was none.
func Hold(cfg Config) (first bool, err error) { return hold(cfg, true) }

func hold(cfg Config, onlyFirst bool) (first bool, err error) {
	err = withRuleset(&cfg, func(r *ruleset) error {
		can, err := r.detect()
		if err != nil {
			return err
		}
		r.own = can.own && !cfg.noOwner
		followed, err := r.refuseForeignTable(cfg.Table)
		if err != nil {
			return err
		}
		there, err := r.tables(cfg.Table)
		if err != nil || followed && onlyFirst {
			return err
		}
		first = len(there) == 0
		return r.shut(&cfg, can, !followed)
	})
	return first, err
}

// withRuleset gives cfg its defaults, and f a socket of nftables in the network
// namespace of the caller's thread, whose /proc queueOwner reads.
func withRuleset(cfg *Config, f func(*ruleset) error) (err error) {
	if *cfg, err = cfg.withDefaults(); err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r, err := openRuleset()
	if err != nil {
		return privileged(err)
	}
	return errors.Join(f(r), r.close())
}

// shut puts the table in force in the form that lets nothing pass but loopback.
// first says that no daemon has let anything through before. What an earlier
// one did is told by the table's queues.
func (r *ruleset) shut(cfg *Config, can abilities, first bool) error {
	fams := families(can.inet)
	return r.install(&tableSpec{
		name: cfg.Table, marks: marks(cfg.Mask), queue: cfg.Queue, queues: cfg.Queues,
		protect: cfg.Protect, apart: cfg.Protect && r.keepApart(fams) == nil, device: deviceName(cfg.Table), compat: can.compat, shut: true, first: first,
	}, fams)
}

// refuseForeignTable keeps a second ipfw from replacing the table of a first
// that reads other queues. It says whether an earlier one has left a table.
func (r *ruleset) refuseForeignTable(table string) (followed bool, err error) {
	owner, followed, err := r.whose(table)
	if err == nil && owner != "" {
		err = foreign(table, owner)
	}
	return followed && err == nil, err
}

// whose names the process that a table belongs to, or that reads the queues it
// names; followed says that it names some.
func (r *ruleset) whose(table string) (owner string, followed bool, err error) {
	if owner, err = r.ownerOf(table); err != nil || owner != "" {
		return owner, false, err
	}
	queues, err := r.queuesIn(table)
	for _, q := range queues {
		if owner = queueOwner(q); owner != "" {
			break
		}
	}
	return owner, len(queues) > 0, err
}

// Left is our table as somebody finds it who does not have it.
type Left struct {
	There bool
	Open  bool   // what nobody judges passes (on_failure)
	Owner string // a process that runs it; empty: there is none
}

// FindLeft looks for our table in the network namespace of the caller. It takes
// CAP_NET_ADMIN.
func FindLeft() (l Left, err error) {
	var cfg Config
	err = withRuleset(&cfg, func(r *ruleset) error {
		there, err := r.tables(cfg.Table)
		if err != nil || len(there) == 0 {
			return privileged(err)
		}
		l.There = true
		if err := r.eachRule(cfg.Table, func(rule *nftables.Rule) {
			l.Open = l.Open || slices.ContainsFunc(rule.Exprs, queueBypasses)
		}); err != nil {
			return privileged(err)
		}
		l.Owner, _, err = r.whose(cfg.Table)
		return privileged(err)
	})
	return l, err
}

// Remove deletes the table of a firewall that was left shut and has no daemon
// any more; that of one that is open is an error. The zero Config will do for
// the default table.
func Remove(cfg Config) (err error) {
	return withRuleset(&cfg, func(r *ruleset) error {
		if _, err := r.refuseForeignTable(cfg.Table); err != nil {
			return privileged(err)
		}
		if err := r.remove(cfg.Table); err != nil {
			return privileged(err)
		}
		return clearRules()
	})
}
