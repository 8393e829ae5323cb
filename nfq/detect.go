package nfq

import (
	"errors"
	"fmt"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// abilities are what a kernel can and another cannot.
type abilities struct {
	inet   bool // one table for both IP families
	compat bool // no queue expression, but the xtables NFQUEUE target
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
func (r *ruleset) detect() (abilities, error) { return detect(r.trial) }

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
func (r *ruleset) trial(fam nftables.TableFamily, exprs ...expr.Any) error {
	t := r.conn.CreateTable(&nftables.Table{Name: fmt.Sprintf("ipfw-trial-%d", os.Getpid()), Family: fam})
	c := r.conn.AddChain(&nftables.Chain{Name: "trial", Table: t})
	if len(exprs) > 0 {
		r.conn.AddRule(&nftables.Rule{Table: t, Chain: c, Exprs: exprs})
	}
	r.conn.DelTable(t)
	return r.commit()
}
