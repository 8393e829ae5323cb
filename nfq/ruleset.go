package nfq

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
)

// ruleset speaks nftables to the kernel over one lasting socket, so that it
// stays in the network namespace it was opened in.
type ruleset struct {
	conn *nftables.Conn
	raw  *netlink.Conn // the same socket
}

// answerTimeout bounds the wait for the kernel's answer: a transaction that
// fails as a whole is answered once, however many messages it had.
const answerTimeout = 5 * time.Second

func openRuleset() (*ruleset, error) {
	r := new(ruleset)
	keep := func(c *netlink.Conn) error { r.raw = c; return nil }
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(keep))
	if err != nil {
		return nil, fmt.Errorf("nftables socket: %w", err)
	}
	r.conn = conn
	return r, nil
}

func (r *ruleset) close() error { return r.conn.CloseLasting() }

// commit sends what has been added to r.conn as one transaction.
func (r *ruleset) commit() error {
	if err := r.raw.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	err := r.conn.Flush()
	if err != nil {
		r.drain()
	}
	return errors.Join(err, r.raw.SetDeadline(time.Time{}))
}

// drain reads away the answers to a transaction that failed.
func (r *ruleset) drain() {
	for {
		if r.raw.SetReadDeadline(time.Now().Add(10*time.Millisecond)) != nil {
			return
		}
		if _, err := r.raw.Receive(); err != nil {
			var op *netlink.OpError
			if !errors.As(err, &op) || op.Timeout() {
				return
			}
		}
	}
}

// families are the tables it takes: one for both IP families where the kernel
// can, else one each.
func families(inet bool) []nftables.TableFamily {
	if inet {
		return []nftables.TableFamily{nftables.TableFamilyINet}
	}
	return []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6}
}

// everyFamily is where a table of ours may stand.
var everyFamily = []nftables.TableFamily{
	nftables.TableFamilyINet, nftables.TableFamilyIPv4, nftables.TableFamilyIPv6,
}

// install puts the table in force in one transaction: at no moment is there
// less or more than the old table or the new one. A table with the same chains
// keeps them and gets new rules, because the kernel drops all packets that wait
// in queues when a chain leaves its hook; any other table of the name is replaced.
func (r *ruleset) install(t *tableSpec, fams []nftables.TableFamily) error {
	chains := t.chains()
	there, err := r.tables(t.name)
	if err != nil {
		return err
	}
	for _, fam := range there {
		if !slices.Contains(fams, fam) {
			r.conn.DelTable(&nftables.Table{Name: t.name, Family: fam})
		}
	}
	for _, fam := range fams {
		table := &nftables.Table{Name: t.name, Family: fam}
		r.conn.AddTable(table)
		same, err := r.sameChains(table, chains)
		if err != nil {
			return err
		}
		if same {
			r.conn.FlushTable(table)
		} else {
			r.conn.DelTable(table)
			r.conn.AddTable(table)
		}
		for i := range chains {
			c := &chains[i]
			chain := r.conn.AddChain(&nftables.Chain{
				Name: c.name, Table: table, Type: nftables.ChainTypeFilter,
				Hooknum: c.hook, Priority: &c.priority, Policy: &c.policy,
			})
			for _, exprs := range c.rules {
				r.conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: exprs})
			}
		}
	}
	if err := r.commit(); err != nil {
		return fmt.Errorf("nftables table %q: %w", t.name, err)
	}
	return nil
}

// remove deletes the table from every family, in one transaction.
func (r *ruleset) remove(name string) error {
	there, err := r.tables(name)
	if err != nil || len(there) == 0 {
		return err
	}
	for _, fam := range there {
		table := &nftables.Table{Name: name, Family: fam}
		r.conn.AddTable(table) // so that one who was faster does not fail us
		r.conn.DelTable(table)
	}
	if err := r.commit(); err != nil {
		return fmt.Errorf("nftables table %q: remove: %w", name, err)
	}
	return nil
}

// tables gives the families in which a table of the name stands.
func (r *ruleset) tables(name string) ([]nftables.TableFamily, error) {
	all, err := r.conn.ListTables()
	if err != nil {
		return nil, fmt.Errorf("list nftables tables: %w", err)
	}
	var there []nftables.TableFamily
	for _, t := range all {
		if t.Name == name && slices.Contains(everyFamily, t.Family) {
			there = append(there, t.Family)
		}
	}
	return there, nil
}

// chainsOf gives the chains of a table; none if there is no such table.
func (r *ruleset) chainsOf(t *nftables.Table) ([]*nftables.Chain, error) {
	all, err := r.conn.ListChainsOfTableFamily(t.Family)
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	return slices.DeleteFunc(all, func(c *nftables.Chain) bool { return c.Table.Name != t.Name }), nil
}

func (r *ruleset) sameChains(t *nftables.Table, want []chainSpec) (bool, error) {
	have, err := r.chainsOf(t)
	if err != nil || len(have) != len(want) {
		return false, err
	}
	for _, w := range want {
		if !slices.ContainsFunc(have, func(h *nftables.Chain) bool {
			return h.Name == w.name && h.Type == nftables.ChainTypeFilter &&
				h.Hooknum != nil && *h.Hooknum == *w.hook &&
				h.Priority != nil && *h.Priority == w.priority
		}) {
			return false, nil
		}
	}
	return true, nil
}

// queuesIn gives the queue numbers that the rules of a table name: those of
// whoever installed it.
func (r *ruleset) queuesIn(name string) ([]uint16, error) {
	var nums []uint16
	err := r.eachRule(name, func(rule *nftables.Rule) {
		if i := slices.IndexFunc(rule.Exprs, isQueue); i >= 0 {
			n, _ := queueNumber(rule.Exprs[i])
			nums = append(nums, n)
		}
	})
	slices.Sort(nums)
	return slices.Compact(nums), err
}

// eachRule reads the rules of a table of the name, in every family.
func (r *ruleset) eachRule(name string, f func(*nftables.Rule)) error {
	there, err := r.tables(name)
	if err != nil {
		return err
	}
	for _, fam := range there {
		table := &nftables.Table{Name: name, Family: fam}
		chains, err := r.chainsOf(table)
		if err != nil {
			return err
		}
		for _, c := range chains {
			rules, err := r.conn.GetRules(table, c)
			if err != nil {
				return fmt.Errorf("list nftables rules: %w", err)
			}
			for _, rule := range rules {
				f(rule)
			}
		}
	}
	return nil
}

func isQueue(e expr.Any) bool { _, ok := queueNumber(e); return ok }
