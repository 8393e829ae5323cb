package nfq

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A reverse path filter (RFC 3704, "strict") asks by which device an answer to a
// packet would leave, and drops the packet if it has come by another. What was
// opened comes by our device, and its answers leave by another one, sealed: it
// would be taken for forged. The kernel's own filter knows a loose mode, see up.
// Those that other programs write as rules ask for the route with the packet's mark:
//
//	meta nfproto ipv6  fib saddr . mark . iif oif missing drop         # firewalld, at filter + 10
//	fib saddr . mark . iif oif exists accept                           # NixOS, both families, at mangle + 10
//
// So behind mangle (see prerouting) the packet gets bits of ours until the hook is done:
//
//	iifname "ipfw0"  meta mark set meta mark & 0x00ffffff | 0x03000000
//
// Not in front of mangle: there others mark connections by whether they have a mark
// already, as a whole word, and filters in that very chain (iptables' rpfilter) are not
// helped. Nor are those that do not ask with the mark.
//
// A routing rule (ip-rule(8)) in front of all but the kernel's own for local addresses
// says that packets with these bits, and no other of ours, leave by our device:
//
//	32765: from all fwmark 0x3000000/0xff000000 lookup 4302 proto 73
//	table 4302: default dev ipfw0
//
// No packet is routed so: the last chain of the hook takes the bits off. A packet
// of this host that somebody has marked so is led to our device, and would be seen
// by rules as leaving there; the output chain drops it:
//
//	meta mark & 0xff000000 == 0x03000000  oifname "ipfw0"  drop
//
// The rule has no number of its own. A rule that somebody adds without one gets that
// in front of all others (wg-quick adds two, in an order that counts), which ours must
// not use up, and ours must be asked before it. So it takes the number in front of
// the first, as theirs do, and takes another one when somebody has gone before it or
// removed it: systemd-networkd removes at its start what it has not made.
//
// When the daemon is killed, the route goes with the device: the rule leads to an
// empty table, and from there to the next rule.
type reversePath struct {
	marks marks
	ipv6  bool          // this host has it
	news  *netlink.Conn // of routing rules; nil: nobody reads any
	done  chan struct{} // closed when nobody reads news any more; nil: nobody has begun to
	told  string        // the last error that was told
}

const (
	backTable = 4302
	// backCalm is how long after a look at the rules news of them waits for the next.
	backCalm = 100 * time.Millisecond
	// priorityMain is where the kernel's rule for the main table stands.
	priorityMain = 32766
)

// wayBack writes on what comes by our device how its way back is found.
func (t *tableSpec) wayBack() []expr.Any {
	return setMeta(t.fromDevice(), uint32(t.marks), t.marks.back())
}

// notBack drops what this host sends and somebody has marked so.
func (t *tableSpec) notBack() []expr.Any {
	return append(metaIs(uint32(t.marks), t.marks.back()),
		meta(expr.MetaKeyOIFNAME), equal(ifname(t.device)), &expr.Verdict{Kind: expr.VerdictDrop})
}

// families are those of this host: whether it is IPv6.
func (b *reversePath) families() []bool {
	if !b.ipv6 {
		return []bool{false}
	}
	return []bool{false, true}
}

// showBack puts the route and the rule in force, and keeps them there. What fails is
// told: packets that come out of an SA are dropped where somebody filters them.
func (t *tunnel) showBack(log *slog.Logger) {
	t.keepBack(log)
	t.way.Lock()
	defer t.way.Unlock()
	if t.back.news == nil || t.back.done != nil {
		return
	}
	for _, g := range []uint32{unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE} {
		if err := t.back.news.JoinGroup(g); err != nil {
			log.Warn("no news of routing rules: the one for reverse path filters of other programs may be lost", slog.Any("error", err))
			return
		}
	}
	t.back.done = make(chan struct{})
	go t.followRules(log)
}

// followRules looks after each change of routing rules whether ours is there and in
// front, until the socket is closed. It loses no news: after an overrun it looks too.
func (t *tunnel) followRules(log *slog.Logger) {
	defer close(t.back.done)
	var looked time.Time
	for {
		_, err := t.back.news.Receive()
		if isClosed(err) {
			return
		}
		if next := looked.Add(backCalm); !isTimeout(err) && time.Now().Before(next) {
			_ = t.back.news.SetReadDeadline(next) // fails when it is closed, as Receive will
			continue
		}
		_ = t.back.news.SetReadDeadline(time.Time{})
		t.keepBack(log)
		looked = time.Now()
	}
}

// close ends that.
func (b *reversePath) close() error {
	if b.news == nil {
		return nil
	}
	err := b.news.Close()
	if b.done != nil {
		<-b.done
	}
	return err
}

// keepBack sees to it that the route and the rule are there.
func (t *tunnel) keepBack(log *slog.Logger) {
	t.way.Lock()
	defer t.way.Unlock()
	var errs []error
	for _, v6 := range t.back.families() {
		if err := t.putBack(v6); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", map[bool]string{false: "IPv4", true: "IPv6"}[v6], err))
		}
	}
	text := ""
	if err := errors.Join(errs...); err != nil {
		text = err.Error()
	}
	if text != t.back.told && text != "" {
		log.Warn("reverse path filters of other programs (firewalld's IPv6_rpfilter) may drop what comes out of an SA: no routing rule shows them the way back by "+t.name,
			slog.String("error", text))
	}
	t.back.told = text
}

// putBack does so for a family. t.way is held.
func (t *tunnel) putBack(v6 bool) error {
	everything := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if v6 {
		everything = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	err := t.route(unix.RTM_NEWROUTE, netip.Addr{}, everything, backTable)
	if v6 && errors.Is(err, unix.EACCES) { // disable_ipv6 of the device: nothing comes by it
		return nil
	}
	if err != nil {
		return fmt.Errorf("default route of table %d: %w", backTable, err)
	}
	own, first, err := t.backRules(v6)
	if err != nil {
		return err
	}
	want := ipRule{v6: v6, priority: first - 1, table: backTable, mark: t.back.marks.back(), mask: uint32(t.back.marks)}
	good := slices.IndexFunc(own, func(r ipRule) bool { return r.mark == want.mark && r.mask == want.mask && r.priority < first })
	if good < 0 {
		if err := t.rule(unix.RTM_NEWRULE, &want); err != nil {
			return fmt.Errorf("routing rule (CONFIG_IP_MULTIPLE_TABLES, CONFIG_IPV6_MULTIPLE_TABLES): %w", err)
		}
	}
	for i := range own {
		if i == good {
			continue
		}
		if err := t.rule(unix.RTM_DELRULE, &own[i]); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("routing rule of before: %w", err)
		}
	}
	return nil
}

// noWayBack removes the rules of a family.
func (t *tunnel) noWayBack(v6 bool) error {
	own, _, err := t.backRules(v6)
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil // no family, or no rules
	}
	errs := []error{err}
	for i := range own {
		if err := t.rule(unix.RTM_DELRULE, &own[i]); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// backRules gives our rules of a family, and the least number of the others but for
// the kernel's first, 0.
func (t *tunnel) backRules(v6 bool) (own []ipRule, first uint32, err error) {
	head := make([]byte, sizeofFibRule)
	if head[0] = unix.AF_INET; v6 {
		head[0] = unix.AF_INET6
	}
	q := request(unix.RTM_GETRULE, head)
	q.Header.Flags |= netlink.Dump
	msgs, err := t.conn.Execute(q)
	if err != nil {
		return nil, 0, fmt.Errorf("routing rules (CONFIG_IP_MULTIPLE_TABLES, CONFIG_IPV6_MULTIPLE_TABLES): %w", err)
	}
	first = priorityMain
	for _, m := range msgs {
		if m.Header.Type != unix.RTM_NEWRULE || len(m.Data) < sizeofFibRule || m.Data[0] != head[0] {
			continue
		}
		r, by := ipRule{v6: v6}, byte(ruleProtocol) // kernels before 4.17 do not tell
		attributes(m.Data[sizeofFibRule:], func(typ uint16, b []byte) {
			number := func() uint32 {
				if len(b) < 4 {
					return 0
				}
				return binary.NativeEndian.Uint32(b)
			}
			switch typ {
			case fraPriority:
				r.priority = number()
			case fraMark:
				r.mark = number()
			case fraMask:
				r.mask = number()
			case fraTable:
				r.table = number()
			case fraProtocol:
				if len(b) > 0 {
					by = b[0]
				}
			}
		})
		if by == ruleProtocol && r.table == backTable {
			own = append(own, r)
		} else if r.priority != 0 {
			first = min(first, r.priority)
		}
	}
	return own, first, nil
}
