package nfq

import (
	"errors"
	"fmt"
	"runtime"
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
	if cfg, err = cfg.withDefaults(); err != nil {
		return false, err
	}
	runtime.LockOSThread() // queueOwner reads the namespace's /proc
	defer runtime.UnlockOSThread()
	r, err := openRuleset()
	if err != nil {
		return false, privileged(err)
	}
	defer func() { err = errors.Join(err, r.close()) }()
	can, err := r.detect()
	if err != nil {
		return false, err
	}
	r.own = can.own && !cfg.noOwner
	followed, err := r.refuseForeignTable(cfg.Table)
	if err != nil {
		return false, err
	}
	there, err := r.tables(cfg.Table)
	if err != nil {
		return false, err
	}
	if followed && onlyFirst {
		return false, nil
	}
	return len(there) == 0, r.shut(&cfg, can, !followed)
}

// shut puts the table in force in the form that lets nothing pass but loopback.
// first says that no daemon has let anything through before. What an earlier
// one did is told by the table's queues.
func (r *ruleset) shut(cfg *Config, can abilities, first bool) error {
	return r.install(&tableSpec{
		name: cfg.Table, marks: marks(cfg.Mask), queue: cfg.Queue, queues: cfg.Queues,
		protect: cfg.Protect, device: deviceName(cfg.Table), compat: can.compat, shut: true, first: first,
	}, families(can.inet))
}

// refuseForeignTable keeps a second ipfw from replacing the table of a first
// that reads other queues. It says whether an earlier one has left a table.
func (r *ruleset) refuseForeignTable(table string) (followed bool, err error) {
	if err := r.ownedByOther(table); err != nil {
		return false, err
	}
	queues, err := r.queuesIn(table)
	if err != nil {
		return false, err
	}
	for _, q := range queues {
		if owner := queueOwner(q); owner != "" {
			return false, fmt.Errorf("nftables table %q and queue %d belong to %s: stop it, or choose another table name and queue number",
				table, q, owner)
		}
	}
	return len(queues) > 0, nil
}

// Remove deletes the table of a firewall that was left shut and has no daemon
// any more; that of one that is open is an error. The zero Config will do for
// the default table.
func Remove(cfg Config) (err error) {
	if cfg, err = cfg.withDefaults(); err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r, err := openRuleset()
	if err != nil {
		return privileged(err)
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if _, err := r.refuseForeignTable(cfg.Table); err != nil {
		return privileged(err)
	}
	return privileged(r.remove(cfg.Table))
}
