//go:build guest

package nfq

import (
	"context"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/ipfw/ipfw/engine"
	"github.com/vishvananda/netlink"
)

// The queue expression of nftables carries packets to our receivers and their
// verdicts back. Kernels at hand that have it have no tables but those of the
// bridge family, so a bridge between two hosts it is:
//
//	a -- bridge, table bridge: queue num 77 -- b
//
// The end-to-end tests build this file and run it in a guest of their own.
func TestNativeQueueExpression(t *testing.T) {
	a, sw, b := newHost(t), newHost(t), newHost(t)
	wire(a, sw, 0)
	wire(b, sw, 1)
	sw.try(func() error {
		br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
		if err := netlink.LinkAdd(br); err != nil {
			return err
		}
		for _, name := range []string{"eth0", "eth1"} {
			l, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			if err := netlink.LinkSetMaster(l, br); err != nil {
				return err
			}
		}
		return netlink.LinkSetUp(br)
	})
	b.try(func() error { // onto a's network
		l, err := netlink.LinkByName("eth1")
		if err != nil {
			return err
		}
		addr, err := netlink.ParseAddr("10.9.0.9/24")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(l, addr)
	})
	b.echo(7)
	b.echo(9)
	to := addrOf("10.9.0.9")
	if got := a.reach("udp", to, 9, patience); got != "open" {
		t.Fatalf("before there is a table: %s", got)
	}

	spec := new(tableSpec)
	sw.try(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		drop := nftables.ChainPolicyDrop
		table := c.AddTable(&nftables.Table{Name: "bridged", Family: nftables.TableFamilyBridge})
		chain := c.AddChain(&nftables.Chain{Name: "forward", Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &drop})
		e := spec.queueFrom(77, 1)
		if _, native := e.(*expr.Queue); !native {
			t.Errorf("the expression is %T", e)
		}
		ipv4 := equal([]byte{0x08, 0x00}) // goes up, the rest (ARP) passes
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{meta(expr.MetaKeyPROTOCOL), ipv4, e}})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{accept()}})
		return c.Flush()
	})
	if got := a.reach("udp", to, 7, silence); got != "silence" {
		t.Errorf("nobody reads the queue: %s", got)
	}

	cfg, err := Config{}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	f := &Firewall{cfg: cfg, marks: marks(cfg.Mask), start: time.Now(), rejects: newRateLimit(1)}
	var r receiver
	sw.try(func() (err error) {
		if f.links, err = openLinkNames(); err == nil {
			r, err = openReceiver(Batch, queueConfig{queue: 77, copyRange: CopyAll, length: 1024, readBuffer: 1 << 20, awake: new(awake)})
		}
		return err
	})
	h := new(handler)
	h.set(port(9, engine.Result{}))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	stats := new(queueStats)
	go func() { ended <- r.receive(ctx, newWorker(f, h, stats)) }()
	for n, want := range map[uint16]string{7: "open", 9: "silence"} {
		if got := a.reach("udp", to, n, time.Second); got != want {
			t.Errorf("udp port %d: %s, want %s", n, got, want)
		}
	}
	if err := a.bulk(to, 1<<20); err != nil {
		t.Errorf("tcp: %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := stats.packets.Load(); n < 20 {
		t.Errorf("only %d packets came up", n)
	}
	t.Logf("%d packets judged by the queue expression", stats.packets.Load())
	if err := r.close(); err != nil {
		t.Error(err)
	}
}
