package nfq

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/esp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// reversePathFilter is a table of a program that drops what comes by another device
// than its answer would leave by, where such programs stand in prerouting, and counts
// what it drops; and what has bits of ours where others mark, in input and in forward.
func (h *testHost) reversePathFilter() (counts func() map[string]uint64) {
	h.t.Helper()
	table := &nftables.Table{Name: "strict", Family: nftables.TableFamilyINet}
	policy := nftables.ChainPolicyAccept
	names := []string{"mangle", "nixos", "firewalld", "input", "forward"}
	h.try(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		c.AddTable(table)
		missing := []expr.Any{
			&expr.Fib{Register: 1, FlagSADDR: true, FlagMARK: true, FlagIIF: true, FlagPRESENT: true, ResultOIF: true}, equal([]byte{0}),
			&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop},
		}
		marked := append(metaIs(DefaultMask, 0), &expr.Counter{})
		marked[2] = unequal(native32(0))
		for i, at := range []struct {
			hook     *nftables.ChainHook
			priority nftables.ChainPriority
			rule     []expr.Any
		}{
			{nftables.ChainHookPrerouting, priorityMangle, marked},
			{nftables.ChainHookPrerouting, priorityMangle + 10, missing},
			{nftables.ChainHookPrerouting, priorityFilter + 10, missing},
			{nftables.ChainHookInput, priorityFilter + 10, marked},
			{nftables.ChainHookForward, priorityFilter + 10, marked},
		} {
			chain := c.AddChain(&nftables.Chain{Name: names[i], Table: table, Type: nftables.ChainTypeFilter,
				Hooknum: at.hook, Priority: &at.priority, Policy: &policy})
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: at.rule})
		}
		return c.Flush()
	})
	return func() map[string]uint64 {
		got := map[string]uint64{}
		h.try(func() error {
			c, err := nftables.New()
			if err != nil {
				return err
			}
			for _, name := range names {
				rules, err := c.GetRules(table, &nftables.Chain{Name: name})
				if err != nil {
					return err
				}
				for _, e := range rules[0].Exprs {
					if n, ok := e.(*expr.Counter); ok && n.Packets > 0 {
						got[name] += n.Packets
					}
				}
			}
			return nil
		})
		return got
	}
}

// What comes out of an SA passes strict reverse path filters of other programs, for
// this host and behind it, and has none of our bits when they are done.
func TestReversePath(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		sealing
		forward bool
	}{
		{sealing{esp.ESP, esp.Transport, false, false}, false}, {sealing{esp.ESP, esp.Transport, true, false}, false},
		{sealing{esp.ESP, esp.Transport, true, true}, false}, {sealing{esp.AH, esp.Transport, true, false}, false},
		{sealing{esp.ESP, esp.Tunnel, false, false}, false}, {sealing{esp.ESP, esp.Tunnel, true, true}, false},
		{sealing{esp.ESP, esp.Tunnel, true, false}, true}, {sealing{esp.ESP, esp.Tunnel, false, true}, true},
		{sealing{esp.AH, esp.Tunnel, true, false}, true},
	} {
		s := tc.sealing
		t.Run(fmt.Sprintf("%v/forward=%v", s, tc.forward), func(t *testing.T) {
			t.Parallel()
			a, b := pair(t)
			addr := map[bool]func(n, host int) netip.Addr{false: addr4, true: addr6}[s.outer6]
			both := func(n, host int) []netip.Addr {
				if s.mode == esp.Transport {
					return []netip.Addr{addr(n, host)}
				}
				return []netip.Addr{addr4(n, host), addr6(n, host)}
			}
			far, to := b, both(0, 2)
			if tc.forward {
				far, to = newHost(t), both(1, 2)
				wire(b, far, 1)
				route(a, 1, 0, 2)
				route(far, 0, 1, 1)
				b.do(func() {
					sysctl(t, "ipv4/ip_forward", "1")
					sysctl(t, "ipv6/conf/all/forwarding", "1")
				})
			}
			far.echo(7)
			counts := b.reversePathFilter()
			a.protect(Config{Encapsulated: s.udp}, sealer(t, s, addr(0, 1), addr(0, 2), both(0, 1), to, 0x1001, 0x1002, false))
			fw := b.protect(Config{Encapsulated: s.udp}, sealer(t, s, addr(0, 2), addr(0, 1), to, both(0, 1), 0x1002, 0x1001, tc.forward))
			for _, to := range to {
				if err := a.ping(to, 100); err != nil {
					t.Errorf("ping %v: %v", to, err)
					continue
				}
				if got := a.reach("udp", to, 7, patience); got != "open" {
					t.Errorf("udp to %v: %s", to, got)
				}
				if err := a.bulk(to, 1<<20); err != nil {
					t.Errorf("tcp to %v: %v", to, err)
				}
			}
			if n := counts(); len(n) > 0 {
				t.Errorf("dropped as forged, or with bits of ours: %v", n)
			}
			if st := fw.Stats(); st.Opened == 0 {
				t.Errorf("counters: %+v", st)
			}
		})
	}
}

// backs gives the rules of a family that are in force, in the order in which they are
// asked: ours for reverse path filters as "back", others by their table.
func (h *testHost) backs(v6 bool) (list []string) {
	h.t.Helper()
	h.try(func() error {
		fam := map[bool]int{false: unix.AF_INET, true: unix.AF_INET6}[v6]
		rules, err := netlink.RuleList(fam)
		for _, r := range rules {
			name := fmt.Sprint(r.Table)
			if r.Table == backTable && r.Mark == marks(DefaultMask).back() && r.Mask != nil && *r.Mask == DefaultMask {
				name = "back"
			}
			list = append(list, name)
		}
		return err
	})
	return list
}

// The rule is in front of all others, one for each family, whatever others do, and
// theirs keep their order; it goes with the daemon, and with who comes after one that
// was killed.
func TestReversePathRule(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	want := func(when string, order ...string) {
		t.Helper()
		for _, v6 := range []bool{false, true} {
			order := strings.Join(slices.Concat([]string{"255"}, order, []string{"254"}), " ")
			if !v6 {
				order += " 253"
			}
			var got string
			for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
				if got = strings.Join(h.backs(v6), " "); got == order {
					break
				}
			}
			if got != order {
				t.Fatalf("%s: IPv6 %v: rules for %s; want %s", when, v6, got, order)
			}
		}
	}
	each := func(change func(fam int) error) {
		t.Helper()
		for _, fam := range []int{unix.AF_INET, unix.AF_INET6} {
			h.try(func() error { return change(fam) })
		}
	}
	add := func(table, priority int) {
		t.Helper()
		each(func(fam int) error {
			r := netlink.NewRule()
			r.Family, r.Table, r.Priority = fam, table, priority
			return netlink.RuleAdd(r)
		})
	}
	want("before")
	fw := h.start(Config{}, pass)
	want("nothing is protected")
	h.try(func() error { return fw.Reload(Config{Protect: true}) })
	want("protected", "back")
	add(100, -1) // wg-quick, as it does
	want("one more", "back", "100")
	add(101, -1)
	want("two more", "back", "101", "100")
	add(102, 1)
	want("number 1", "back", "102", "101", "100")
	each(func(fam int) error {
		rules, err := netlink.RuleList(fam)
		for _, r := range rules {
			if r.Table >= 100 && r.Table <= 102 || r.Table == backTable {
				r.Family = fam
				if err := netlink.RuleDel(&r); err != nil {
					return err
				}
			}
		}
		return err
	})
	want("all removed", "back")
	fw.stop()
	if err := fw.Close(false); err != nil {
		t.Fatal(err)
	}
	want("closed")

	_, kill := h.spawn(Config{Protect: true})
	want("of a child", "back")
	kill()
	want("killed", "back")
	h.try(func() error { return Remove(Config{}) })
	want("opened")
	_, kill = h.spawn(Config{Protect: true})
	kill()
	want("killed again", "back")
	h.tryStart(Config{}, pass)
	want("nothing is protected by the next one")
}

// A mark that a program of this host sets does not have its packets seen as leaving
// by our device, which rules of a policy may let pass.
func TestReversePathMarkOfOthers(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	judged := make(chan string, 100)
	r := a.start(Config{Protect: true}, func(in *engine.Input) engine.Result {
		if in.Dir == engine.Out && in.Packet.HasPorts && in.Packet.DstPort == 7 {
			judged <- in.OutIf
		}
		return pass(in)
	})
	b.echo(7)
	for _, to := range []netip.Addr{addr4(0, 2), addr6(0, 2)} {
		for _, mark := range []uint32{r.marks.back(), r.marks.back() | 5} {
			send := func(mark uint32) {
				a.try(func() error {
					d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
						if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark)) }); e != nil {
							return e
						}
						return err
					}}
					c, err := d.Dial("udp", netip.AddrPortFrom(to, 7).String())
					if err != nil {
						return err
					}
					defer c.Close()
					_, _ = c.Write([]byte("x")) // may be told that it was dropped
					return nil
				})
			}
			send(mark)
			send(5) // it comes after the other, if that comes
			var seen []string
			select {
			case dev := <-judged:
				seen = append(seen, dev)
			case <-time.After(patience):
				t.Fatalf("%v: nothing is judged", to)
			}
			if len(judged) > 0 {
				seen = append(seen, <-judged)
			}
			if !slices.Equal(seen, []string{"eth0"}) {
				t.Errorf("%v, mark %#x: judged as leaving by %q", to, mark, seen)
			}
		}
	}
}

// That the way back cannot be shown is told; that a host without IPv6 on the device has
// none to be shown is not.
func TestReversePathTold(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.do(func() { sysctl(t, "ipv6/conf/default/disable_ipv6", "1") })
	var log bytes.Buffer // read when nobody writes it any more
	cfg := Config{Protect: true, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	fw := h.start(cfg, pass)
	if got := h.backs(false); !slices.Contains(got, "back") {
		t.Errorf("IPv4: rules for %v", got)
	}
	if got := h.backs(true); slices.Contains(got, "back") {
		t.Errorf("IPv6, which is off: rules for %v", got)
	}
	h.try(func() error {
		link, err := netlink.LinkByName(Device)
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(link)
	})
	for range 2 { // and not again and again
		h.try(func() error { return fw.Reload(cfg) })
	}
	fw.stop()
	if err := fw.Close(false); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "reverse path filters of other programs"); n != 1 || !strings.Contains(log.String(), "IPv4: default route of table 4302: ") {
		t.Errorf("told %d times of a device that is down:\n%s", n, log.String())
	}
}
