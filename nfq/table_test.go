package nfq

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// render writes chains the way a person compares them.
func render(chains []chainSpec) string {
	var b strings.Builder
	for _, c := range chains {
		fmt.Fprintf(&b, "chain %s hook %d priority %d policy %d\n", c.name, *c.hook, c.priority, c.policy)
		for _, rule := range c.rules {
			b.WriteString(" ")
			for _, e := range rule {
				b.WriteString(" " + renderExpr(e))
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

func renderExpr(e expr.Any) string {
	switch e := e.(type) {
	case *expr.Meta:
		return fmt.Sprintf("[meta %d %s]", e.Key, way(e.SourceRegister))
	case *expr.Ct:
		return fmt.Sprintf("[ct %d %s]", e.Key, way(e.SourceRegister))
	case *expr.Payload:
		return fmt.Sprintf("[payload %d %d+%d]", e.Base, e.Offset, e.Len)
	case *expr.Bitwise:
		if e.Len != 4 {
			return fmt.Sprintf("[& %x ^ %x]", e.Mask, e.Xor)
		}
		return fmt.Sprintf("[& %#08x ^ %#08x]", binary.NativeEndian.Uint32(e.Mask), binary.NativeEndian.Uint32(e.Xor))
	case *expr.Cmp:
		return fmt.Sprintf("[%d %x]", e.Op, e.Data)
	case *expr.Verdict:
		return fmt.Sprintf("[verdict %d]", e.Kind)
	case *expr.Immediate:
		return fmt.Sprintf("[immediate %d %x]", e.Register, e.Data)
	case *expr.Lookup:
		return fmt.Sprintf("[lookup %d %s]", e.SourceRegister, e.SetName)
	case *expr.Dynset:
		return fmt.Sprintf("[dynset %d %d %s]", e.Operation, e.SrcRegKey, e.SetName)
	case *expr.Objref:
		return fmt.Sprintf("[objref %d %s]", e.Type, e.Name)
	case *expr.Queue:
		return fmt.Sprintf("[queue %d %d %#x]", e.Num, e.Total, e.Flag)
	case *expr.Match:
		return fmt.Sprintf("[match %s %d %x]", e.Name, e.Rev, (*e.Info.(*xt.Unknown))[:8])
	case *expr.Target:
		return fmt.Sprintf("[target %s %d %x]", e.Name, e.Rev, *e.Info.(*xt.Unknown))
	}
	return fmt.Sprintf("[%T]", e)
}

func way(set bool) string {
	if set {
		return "set"
	}
	return "get"
}

// listing reads a table back out of the kernel.
func (h *testHost) listing(name string, fam nftables.TableFamily) string {
	h.t.Helper()
	var chains []chainSpec
	h.try(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		all, err := c.ListChainsOfTableFamily(fam)
		if err != nil {
			return err
		}
		for _, ch := range all {
			if ch.Table.Name != name {
				continue
			}
			spec := chainSpec{name: ch.Name, hook: ch.Hooknum, priority: *ch.Priority, policy: *ch.Policy}
			rules, err := c.GetRules(ch.Table, ch)
			if err != nil {
				return err
			}
			for _, r := range rules {
				spec.rules = append(spec.rules, r.Exprs)
			}
			chains = append(chains, spec)
		}
		return nil
	})
	return render(chains)
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s (-update rewrites it): %s", name, firstDifference(got, string(want)))
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d is\n%s\nwant\n%s", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}

// The table as it is written, for both ways to a queue.
func TestTableGolden(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		file string
		spec tableSpec
	}{
		{"table.queue", tableSpec{marks: marks(DefaultMask), queue: 4301, queues: 2}},
		{"table.compat", tableSpec{marks: marks(DefaultMask), queue: 4301, queues: 2, compat: true}},
		{"table.open", tableSpec{marks: 0x00ff00, queue: 1, queues: 1, sends: credential{uid: 1000, gid: 77}, failOpen: true, compat: true}},
		{"table.offload", tableSpec{marks: marks(DefaultMask), queue: 4301, queues: 2, offload: true, gen: 2}},
		{"table.via", tableSpec{marks: marks(DefaultMask), queue: 4301, queues: 2, offload: true, gen: 2, via: 0x01020304}},
		{"table.related", tableSpec{marks: marks(DefaultMask), queue: 4301, queues: 2, offload: true, gen: 2, related: true}},
		{"table.protect", tableSpec{marks: marks(DefaultMask), queue: 4301, queues: 2, protect: true, device: "ipfw0", secret: 0x0a0b0c0d}},
		{"table.apart", tableSpec{marks: marks(DefaultMask), queue: 4301, queues: 2, protect: true, apart: true, device: "ipfw0", secret: 0x0a0b0c0d}},
		{"table.encap", tableSpec{marks: marks(DefaultMask), queue: 4301, queues: 2, protect: true, encap: true, device: "ipfw0", secret: 0x0a0b0c0d}},
		{"table.ike", tableSpec{marks: marks(DefaultMask), queue: 4301, queues: 2, protect: true, encap: true, ike: true, device: "ipfw0", secret: 0x0a0b0c0d}},
		{"table.intake", tableSpec{marks: marks(DefaultMask), queue: 4301, queues: 2, protect: true, prog: 9, device: "ipfw0", secret: 0x0a0b0c0d}},
	} {
		golden(t, tc.file, render(tc.spec.chains()))
	}
}

// What the kernel holds is what was written, in each kind of table.
func TestTableReadBack(t *testing.T) {
	t.Parallel()
	for _, inet := range []bool{true, false} {
		t.Run(fmt.Sprintf("inet=%v", inet), func(t *testing.T) {
			h := newHost(t)
			h.try(func() error {
				r, err := openRuleset()
				if err != nil {
					return err
				}
				defer r.close()
				can, err := r.detect()
				if err != nil {
					return err
				}
				spec := &tableSpec{name: "ipfw", marks: marks(DefaultMask), queue: 4301, queues: 2, compat: can.compat, offload: true, gen: 5, via: 6}
				foreign := foreignTable(t, h)
				// The other kind is what a predecessor may have left.
				for _, fams := range [][]nftables.TableFamily{families(!inet), families(inet), families(inet)} {
					if err := r.install(spec, fams); err != nil {
						return err
					}
					for _, fam := range everyFamily {
						want := ""
						for _, f := range fams {
							if f == fam {
								// The library does not read back that ct is a set.
								want = strings.ReplaceAll(render(spec.chains()), "[ct 3 set]", "[ct 3 get]")
							}
						}
						if got := h.listing("ipfw", fam); got != want {
							t.Errorf("family %d: %s", fam, firstDifference(got, want))
						}
					}
				}
				if qs, err := r.queuesIn("ipfw"); err != nil || !slices.Equal(qs, []uint16{4301, 4305, 4307}) {
					t.Errorf("queues in the table: %v, %v", qs, err)
				}
				if g, err := r.generationIn("ipfw", spec.marks); err != nil || g != spec.gen {
					t.Errorf("generation in the table: %d, %v; want %d", g, err, spec.gen)
				}
				if err := r.remove("ipfw"); err != nil {
					return err
				}
				if err := r.remove("ipfw"); err != nil {
					t.Errorf("remove what is not there: %v", err)
				}
				if there, _ := r.tables("ipfw"); len(there) != 0 {
					t.Errorf("still there: %v", there)
				}
				if got := h.listing("other", nftables.TableFamilyINet); got != foreign {
					t.Errorf("foreign table changed from\n%s\nto\n%s", foreign, got)
				}
				return nil
			})
		})
	}
}

// foreignTable makes a table of somebody else and gives its listing.
func foreignTable(t *testing.T, h *testHost) string {
	t.Helper()
	h.try(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		policy := nftables.ChainPolicyAccept
		table := c.AddTable(&nftables.Table{Name: "other", Family: nftables.TableFamilyINet})
		chain := c.AddChain(&nftables.Chain{
			Name: "input", Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter, Policy: &policy,
		})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			meta(expr.MetaKeyIIFTYPE), equal(native16(1)), accept(),
		}})
		return c.Flush()
	})
	l := h.listing("other", nftables.TableFamilyINet)
	if !strings.Contains(l, "verdict") {
		t.Fatalf("foreign table: %q", l)
	}
	return l
}

// Kernels that lack one thing or another, by what their trials answer.
func TestDetect(t *testing.T) {
	t.Parallel()
	const none = "none"
	noInet := func(fam nftables.TableFamily, _ []expr.Any) bool { return fam == nftables.TableFamilyINet }
	no := func(is func(expr.Any) bool) func(nftables.TableFamily, []expr.Any) bool {
		return func(_ nftables.TableFamily, es []expr.Any) bool {
			for _, e := range es {
				if is(e) {
					return true
				}
			}
			return false
		}
	}
	noQueue := no(func(e expr.Any) bool { _, ok := e.(*expr.Queue); return ok })
	noTarget := no(func(e expr.Any) bool { _, ok := e.(*expr.Target); return ok })
	noCt := no(func(e expr.Any) bool { _, ok := e.(*expr.Ct); return ok })
	all := func(nftables.TableFamily, []expr.Any) bool { return true }
	type lack = func(nftables.TableFamily, []expr.Any) bool
	for _, tc := range []struct {
		name  string
		errno unix.Errno
		lacks []lack
		want  abilities
		err   string
	}{
		{"has all", unix.ENOENT, nil, abilities{inet: true}, none},
		{"no queue expression", unix.ENOENT, []lack{noQueue}, abilities{inet: true, compat: true}, none},
		{"no inet", unix.EOPNOTSUPP, []lack{noInet}, abilities{}, none},
		{"no inet, no queue expression", unix.ENOENT, []lack{noInet, noQueue}, abilities{compat: true}, none},
		{"no way to a queue", unix.ENOENT, []lack{noQueue, noTarget}, abilities{}, "neither the nftables queue expression (CONFIG_NFT_QUEUE: no such file or directory) nor the xtables NFQUEUE target (CONFIG_NETFILTER_XT_TARGET_NFQUEUE with CONFIG_NFT_COMPAT"},
		{"no conntrack", unix.ENOENT, []lack{noCt}, abilities{}, "CONFIG_NF_CONNTRACK_MARK"},
		{"no nftables", unix.EINVAL, []lack{all}, abilities{}, "CONFIG_NF_TABLES"},
		{"no privilege", unix.EPERM, []lack{all}, abilities{}, "needs CAP_NET_ADMIN: run with sudo"},
	} {
		got, err := detect(func(fam nftables.TableFamily, es ...expr.Any) error {
			for _, lacks := range tc.lacks {
				if lacks(fam, es) {
					return fmt.Errorf("conn.Receive: %w", tc.errno)
				}
			}
			return nil
		})
		switch {
		case tc.err == none && (err != nil || got != tc.want):
			t.Errorf("%s: %+v, %v; want %+v", tc.name, got, err, tc.want)
		case tc.err != none && (err == nil || !strings.Contains(err.Error(), tc.err)):
			t.Errorf("%s: error %v; want %q", tc.name, err, tc.err)
		}
	}
}

// Trials leave nothing behind, whether they succeed or fail.
func TestTrialLeavesNothing(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.try(func() error {
		r, err := openRuleset()
		if err != nil {
			return err
		}
		defer r.close()
		bad := &expr.Target{Name: "NOSUCHTARGET", Rev: 1, Info: new(xt.Unknown)}
		if err := r.trial(nftables.TableFamilyINet, bad); err == nil || errors.Is(err, os.ErrPermission) {
			t.Errorf("trial of a target that does not exist: %v", err)
		}
		// Every message of this one is an error of its own.
		x := r.scratch(nftables.TableFamilyINet, 1<<31)
		for range 200 {
			x.flush(nftables.TableFamilyINet, "no such table")
		}
		if err := r.commit(x); err == nil {
			t.Error("flags that do not exist are no error")
		}
		if err := r.trial(nftables.TableFamilyINet, setMeta(nil, 0, 0)...); err != nil {
			t.Errorf("trial after a failed one: %v", err)
		}
		tables, err := r.conn.ListTables()
		if len(tables) != 0 {
			t.Errorf("left: %v", tables)
		}
		return err
	})
}

func TestMask(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		mask uint32
		ok   bool
	}{
		{DefaultMask, true}, {0xff, true}, {0xffffffff, true}, {0x00fff000, true},
		{0x7f000000, false}, {0xff00ff00, false}, {1, false}, {0x01fe0001, false},
	} {
		if err := marks(tc.mask).check(); (err == nil) != tc.ok {
			t.Errorf("mask %#x: %v", tc.mask, err)
		}
	}
	if m := marks(DefaultMask); m.reply() != 1<<24 || m.admitted() != 1<<27 {
		t.Errorf("layout: %#x %#x", m.reply(), m.admitted())
	}
}
