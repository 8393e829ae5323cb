package nfq

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ruleset speaks nftables to the kernel over one lasting socket, so that it
// stays in the network namespace it was opened in.
type ruleset struct {
	conn  *nftables.Conn
	raw   *netlink.Conn // the same socket, and the owner of the table
	own   bool          // the kernel has tables that belong to a socket and outlive it
	apart bool          // the kernel has helpers that keep connections out of flowtables ...
	// ... or why it has none.
	notApart error
}

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
//
// Where the kernel can, the table is ours: nobody else can change it while we
// live, and it outlives us. The next ipfw adopts it in the same transaction in
// which it gives it new rules. One that was not made so cannot be adopted.
func (r *ruleset) install(t *tableSpec, fams []nftables.TableFamily) error {
	there, err := r.tables(t.name)
	if err != nil {
		return err
	}
	x := new(transaction)
	for _, old := range there {
		if !slices.Contains(fams, old.family) {
			x.deleteTable(old.family, t.name)
		}
	}
	chains := t.chains()
	var flags uint32
	if r.own {
		flags = tableOwner | tablePersist
	}
	for _, fam := range fams {
		same, err := r.sameChains(&nftables.Table{Name: t.name, Family: fam}, chains)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(there, func(old tableState) bool { return old.family == fam })
		if i >= 0 && (!same || there[i].flags&tablePersist != flags&tablePersist) {
			x.anyTable(fam, t.name) // so that one who was faster does not fail us
			x.deleteTable(fam, t.name)
		}
		x.table(fam, t.name, flags)
		x.flush(fam, t.name)
		if t.via != 0 {
			x.viaSet(fam, t.name)
		}
		if t.apart {
			x.helpers(fam, t.name)
		}
		for i := range chains {
			x.chain(fam, t.name, &chains[i])
		}
	}
	err = r.commit(x)
	if t.apart && errors.Is(err, unix.ENOENT) && askHelpers(msgHelperNew) == nil {
		err = r.commit(x) // one who has ended just now had taken the helper away
	}
	if err != nil {
		return r.refused(t.name, err)
	}
	return nil
}

// remove deletes the table from every family, in one transaction.
func (r *ruleset) remove(name string) error {
	if err := r.ownedByOther(name); err != nil {
		return err
	}
	there, err := r.tables(name)
	if err != nil {
		return err
	}
	x, apart := new(transaction), false
	for _, old := range there {
		chains, err := r.chainsOf(&nftables.Table{Name: name, Family: old.family})
		if err != nil {
			return err
		}
		apart = apart || slices.ContainsFunc(chains, func(c *nftables.Chain) bool { return c.Name == apartChain })
		x.anyTable(old.family, name) // so that one who was faster does not fail us
		x.deleteTable(old.family, name)
	}
	if err := r.commit(x); err != nil {
		return r.refused(name, err)
	}
	if apart {
		dropHelper()
	}
	return nil
}

// refused gives the error of a transaction on our table words: what belongs to
// another socket the kernel refuses like what takes privileges.
func (r *ruleset) refused(name string, err error) error {
	if errors.Is(err, os.ErrPermission) {
		if err := r.ownedByOther(name); err != nil {
			return err
		}
	}
	return fmt.Errorf("nftables table %q: %w", name, err)
}

// ownedByOther is an error that says who has the table, if it belongs to a socket
// that is not ours.
func (r *ruleset) ownedByOther(name string) error {
	owner, err := r.ownerOf(name)
	if err == nil && owner != "" {
		err = foreign(name, owner)
	}
	return err
}

// foreign refuses what another process has.
func foreign(what, owner string) error {
	return fmt.Errorf("nftables table %q belongs to %s: stop it first, because a network namespace has one ipfw", what, owner)
}

// ownerOf names the process that has the table, if it belongs to a socket that is
// not ours; "": nobody has.
//
// A socket that nobody has open any more may be an owner for a moment longer: the
// kernel ends it when the last system call on it has returned. That is waited for.
func (r *ruleset) ownerOf(name string) (string, error) {
	for end := time.Now().Add(ownerGoes); ; time.Sleep(ownerGoes / 100) {
		there, err := r.tables(name)
		if err != nil {
			return "", err
		}
		i := slices.IndexFunc(there, func(t tableState) bool { return t.owner != 0 && t.owner != r.raw.PID() })
		if i < 0 {
			return "", nil
		}
		owner := portOwner(there[i].owner)
		if owner == "" && time.Now().Before(end) {
			continue
		}
		return cmp.Or(owner, unseen(there[i].owner)), nil
	}
}

// ownerGoes is how long the end of an owner that no process has open is waited for.
const ownerGoes = 10 * time.Second

// tableState is a table as the kernel tells it.
type tableState struct {
	family nftables.TableFamily
	flags  uint32
	owner  uint32 // the netlink port of the socket that it belongs to; 0: nobody's
}

// dump gives all objects of a kind, of every family.
func (r *ruleset) dump(get netlink.HeaderType, kind string) ([]netlink.Message, error) {
	msgs, err := r.raw.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | get, Flags: netlink.Request | netlink.Dump},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	})
	if err != nil {
		return nil, fmt.Errorf("list nftables %s: %w", kind, err)
	}
	return msgs, nil
}

// tables gives the tables of the name. The library's list has no owner, and
// flags in the wrong byte order.
func (r *ruleset) tables(name string) ([]tableState, error) {
	msgs, err := r.dump(unix.NFT_MSG_GETTABLE, "tables")
	if err != nil {
		return nil, err
	}
	var there []tableState
	for _, m := range msgs {
		if tableOf(m) != name {
			continue
		}
		t := tableState{family: nftables.TableFamily(m.Data[0])}
		attributes(m.Data[sizeofNfgenmsg:], func(typ uint16, v []byte) {
			switch typ {
			case unix.NFTA_TABLE_FLAGS:
				t.flags = be32(v)
			case attrTableOwner:
				t.owner = be32(v)
			}
		})
		if slices.Contains(everyFamily, t.family) {
			there = append(there, t)
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
			return h.Name == w.name && h.Type == w.typ() &&
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
	for _, t := range there {
		table := &nftables.Table{Name: name, Family: t.family}
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
