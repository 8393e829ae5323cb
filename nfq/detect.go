package nfq

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// abilities are what a kernel can and another cannot.
type abilities struct {
	inet   bool // one table for both IP families
	compat bool // no queue expression, but the xtables NFQUEUE target
	socket bool // rules can ask for the mark of the socket that a packet is for
	own    bool // tables that belong to a socket and outlive it (Linux 6.9)
	// replace is what a verdict can put in the place of a packet.
	replace replacing
}

// errNoPrivilege is the sentence for a caller who may not.
var errNoPrivilege = errors.New("needs CAP_NET_ADMIN: run with sudo")

// privileged puts errNoPrivilege in the place of a permission error.
func privileged(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return errNoPrivilege
	}
	return err
}

// detect finds out what the kernel can by trying it: each trial is one
// transaction that makes a scratch table and deletes it again, so that nothing
// of it is ever in force or remains.
func (r *ruleset) detect() (abilities, error) {
	a, err := detect(r.trial)
	if err != nil {
		return a, err
	}
	a.socket = r.trial(families(a.inet)[0], socketMark()) == nil
	a.replace = canReplace(kernelRelease())
	a.own = r.commit(r.scratch(families(a.inet)[0], tableOwner|tablePersist)) == nil
	return a, nil
}

// detect with the trials as an argument can be asked about other kernels.
func detect(trial func(nftables.TableFamily, ...expr.Any) error) (abilities, error) {
	a := abilities{inet: true}
	fam := nftables.TableFamilyINet
	err := trial(fam)
	if err != nil && !errors.Is(err, os.ErrPermission) {
		a.inet, fam = false, nftables.TableFamilyIPv4
		if err = trial(fam); err == nil {
			err = trial(nftables.TableFamilyIPv6)
		}
	}
	if errors.Is(err, os.ErrPermission) {
		return a, errNoPrivilege
	}
	if err != nil {
		return a, fmt.Errorf("this kernel has no nftables filter tables for IPv4 and IPv6 (CONFIG_NF_TABLES with CONFIG_NF_TABLES_INET, or CONFIG_NF_TABLES_IPV4 and CONFIG_NF_TABLES_IPV6): %w", err)
	}

	if err := trial(fam, setMeta(nil, 0, 0)...); err != nil {
		return a, fmt.Errorf("this kernel's nftables cannot set packet marks: %w", privileged(err))
	}
	if err := trial(fam, &expr.Ct{Key: expr.CtKeyMARK, Register: 1}, and(1),
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1, SourceRegister: true}); err != nil {
		return a, fmt.Errorf("this kernel has no connection tracking with marks for nftables (CONFIG_NFT_CT with CONFIG_NF_CONNTRACK_MARK): %w", privileged(err))
	}

	queue := tableSpec{queue: DefaultQueue, queues: 1}
	errQueue := trial(fam, queue.queueExpr(queueLive))
	if errQueue == nil {
		return a, nil
	}
	queue.compat = true
	if err := trial(fam, queue.queueExpr(queueLive)); err != nil {
		return a, fmt.Errorf("this kernel has neither the nftables queue expression (CONFIG_NFT_QUEUE: %w) nor the xtables NFQUEUE target (CONFIG_NETFILTER_XT_TARGET_NFQUEUE with CONFIG_NFT_COMPAT: %w): use a kernel that has one of them",
			bare(errQueue), bare(err))
	}
	a.compat = true
	return a, nil
}

// bare strips an error to the kernel's errno.
func bare(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// trial makes a scratch table of one chain and one rule and deletes it again,
// in one transaction. The chain hangs on no hook.
//
// A module of xtables has an alias for each family that iptables has, and the
// kernel asks for it by the family of the table: in inet it finds what is loaded
// and loads nothing. So it is asked to in a table of IPv4 first.
func (r *ruleset) trial(fam nftables.TableFamily, exprs ...expr.Any) error {
	err := r.commit(r.scratch(fam, 0, exprs...))
	if fam == nftables.TableFamilyINet && errors.Is(err, unix.ENOENT) && slices.ContainsFunc(exprs, ofXtables) &&
		r.commit(r.scratch(nftables.TableFamilyIPv4, 0, exprs...)) == nil {
		err = r.commit(r.scratch(fam, 0, exprs...))
	}
	return err
}

// ofXtables says that an expression is a match or a target of xtables.
func ofXtables(e expr.Any) bool {
	switch e.(type) {
	case *expr.Match, *expr.Target:
		return true
	}
	return false
}

func (r *ruleset) scratch(fam nftables.TableFamily, flags uint32, exprs ...expr.Any) *transaction {
	name := r.scratchName()
	c := chainSpec{name: "trial"}
	if len(exprs) > 0 {
		c.rules = [][]expr.Any{exprs}
	}
	x := new(transaction)
	x.table(fam, name, flags)
	x.chain(fam, name, &c)
	x.deleteTable(fam, name)
	return x
}

func (r *ruleset) scratchName() string {
	return fmt.Sprintf("ipfw-trial-%d-%d", os.Getpid(), r.raw.PID())
}
