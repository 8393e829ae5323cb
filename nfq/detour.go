package nfq

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A detour sends everything (or another network that the peer is in) by the
// device of protected packets, without leading what is sealed for the peer in a
// circle, and without locking anybody out. Its routes are in a table of their
// own, and rules (ip-rule(8)) say who goes there:
//
//	4301  to the peer               main: the way that sealed packets take
//	4302  all, but default routes   main: the LAN, and whatever has a route of its own
//	4303  from the lent address     4301: what belongs into the tunnel
//	4304  from another address      main: answers to who has called this host where it was
//	      (IPv4: from none yet      4301)
//	4305  from none yet (IPv6)      4301: what begins here
//
// Whatever becomes of the daemon, nothing is lost: the device goes with it, and
// a table without routes leads to the next rule.
type detour struct {
	peer     netip.Addr
	networks []netip.Prefix
}

const (
	detourTable  = 4301
	detourRule   = 4301 // the first of five priorities
	ruleProtocol = 73   // who has made the rule, FRA_PROTOCOL
)

// ipRule is one rule of the routing policy.
type ipRule struct {
	v6       bool
	priority uint32
	from, to netip.Prefix // the zero Prefix: any
	table    uint32
	specific bool   // a default route does not count (suppress_prefixlength 0)
	mark     uint32 // of packets whose marks have ...
	mask     uint32 // ... these bits so; 0: of any
}

// rulesFor are the rules of a family that the detours need.
func rulesFor(v6 bool, detours map[netip.Addr]detour) (list []ipRule) {
	rule := func(n uint32, from, to netip.Prefix, table uint32, specific bool) {
		list = append(list, ipRule{v6: v6, priority: detourRule + n, from: from, to: to, table: table, specific: specific})
	}
	host := func(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
	var any netip.Prefix
	for a, d := range detours {
		if a.Is6() != v6 {
			continue
		}
		if len(list) == 0 {
			rule(1, any, any, unix.RT_TABLE_MAIN, true)
			if v6 { // a rule with a source is for packets that have one
				rule(3, netip.MustParsePrefix("::/1"), any, unix.RT_TABLE_MAIN, false)
				rule(3, netip.MustParsePrefix("8000::/1"), any, unix.RT_TABLE_MAIN, false)
				rule(4, any, any, detourTable, false)
			} else {
				rule(3, host(netip.IPv4Unspecified()), any, detourTable, false)
			}
		}
		if d.peer.Is6() == v6 {
			rule(0, any, host(d.peer), unix.RT_TABLE_MAIN, false)
		}
		rule(2, host(a), any, detourTable, false)
	}
	return list
}

// detour begins one for a lent address.
func (t *tunnel) detour(a netip.Addr, d detour) error {
	t.way.Lock()
	defer t.way.Unlock()
	for _, n := range d.networks {
		if err := t.route(unix.RTM_NEWROUTE, a, n, detourTable); err != nil {
			return err
		}
	}
	t.detours[a] = d
	if err := t.syncRules(); err != nil {
		delete(t.detours, a)
		return errors.Join(err, t.syncRules())
	}
	return nil
}

// noDetour ends that of an address, if it has one.
func (t *tunnel) noDetour(a netip.Addr) error {
	t.way.Lock()
	defer t.way.Unlock()
	d, ok := t.detours[a]
	if !ok {
		return nil
	}
	delete(t.detours, a)
	err := t.syncRules()
	for _, n := range d.networks {
		_ = t.route(unix.RTM_DELROUTE, a, n, detourTable) // another may have taken its place
	}
	for b, o := range t.detours { // or has to now
		for _, n := range o.networks {
			err = errors.Join(err, t.route(unix.RTM_NEWROUTE, b, n, detourTable))
		}
	}
	return err
}

func (t *tunnel) movedDetour(a, peer netip.Addr) error {
	t.way.Lock()
	defer t.way.Unlock()
	d, ok := t.detours[a]
	if !ok || d.peer == peer {
		return nil
	}
	d.peer = peer
	t.detours[a] = d
	return t.syncRules()
}

// syncRules puts the rules in force that the detours need: new ones from the
// first to the last, so that nothing is led astray meanwhile, and takes the
// others away in the opposite order. t.way is held.
func (t *tunnel) syncRules() error {
	want := map[ipRule]bool{}
	for _, v6 := range []bool{false, true} {
		for _, r := range rulesFor(v6, t.detours) {
			want[r] = true
		}
	}
	order := func(m map[ipRule]bool) []ipRule {
		return slices.SortedFunc(maps.Keys(m), func(a, b ipRule) int { return int(a.priority) - int(b.priority) })
	}
	for _, r := range order(want) {
		if t.rules[r] {
			continue
		}
		if err := t.rule(unix.RTM_NEWRULE, &r); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		t.rules[r] = true
	}
	var errs []error
	for _, r := range slices.Backward(order(t.rules)) {
		if want[r] {
			continue
		}
		if err := t.rule(unix.RTM_DELRULE, &r); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, err)
			continue
		}
		delete(t.rules, r)
	}
	return errors.Join(errs...)
}

// Attributes of a rule, linux/fib_rules.h.
const (
	fraDst         = 1
	fraSrc         = 2
	fraPriority    = 6
	fraMark        = 10
	fraSuppressLen = 14
	fraTable       = 15
	fraMask        = 16
	fraProtocol    = 21
	frToTable      = 1
)

// rule adds or removes a rule.
func (t *tunnel) rule(kind uint16, r *ipRule) error {
	// struct fib_rule_hdr: family, lengths of destination and source, TOS,
	// table, two reserved, action, flags.
	body := []byte{unix.AF_INET, 0, 0, 0, unix.RT_TABLE_UNSPEC, 0, 0, frToTable, 0, 0, 0, 0}
	if r.v6 {
		body[0] = unix.AF_INET6
	}
	number := func(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }
	attrs := []netlink.Attribute{{Type: fraPriority, Data: number(r.priority)}, {Type: fraProtocol, Data: []byte{ruleProtocol}}}
	if r.table != 0 {
		attrs = append(attrs, netlink.Attribute{Type: fraTable, Data: number(r.table)})
	}
	if r.mask != 0 {
		attrs = append(attrs, netlink.Attribute{Type: fraMark, Data: number(r.mark)}, netlink.Attribute{Type: fraMask, Data: number(r.mask)})
	}
	if r.specific {
		attrs = append(attrs, netlink.Attribute{Type: fraSuppressLen, Data: number(0)})
	}
	if r.to.IsValid() {
		body[1] = byte(r.to.Bits())
		attrs = append(attrs, netlink.Attribute{Type: fraDst, Data: r.to.Addr().AsSlice()})
	}
	if r.from.IsValid() {
		body[2] = byte(r.from.Bits())
		attrs = append(attrs, netlink.Attribute{Type: fraSrc, Data: r.from.Addr().AsSlice()})
	}
	b, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		return err
	}
	h := netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | netlink.Acknowledge}
	if kind == unix.RTM_NEWRULE {
		h.Flags |= netlink.Create | netlink.Excl
	}
	_, err = t.conn.Execute(netlink.Message{Header: h, Data: append(body, b...)})
	return err
}

// maxStale bounds how many rules of a predecessor are looked for.
const maxStale = 4096

// clearRules removes the rules that a daemon which was killed has left in the network
// namespace of the caller's thread.
func clearRules() error {
	c, err := netlink.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return fmt.Errorf("route netlink socket: %w", err)
	}
	(&tunnel{conn: c}).clearRules()
	return c.Close()
}

// clearRules removes what a daemon that was killed has left.
func (t *tunnel) clearRules() {
	for _, v6 := range []bool{false, true} {
		for n := range uint32(5) {
			for range maxStale {
				if t.rule(unix.RTM_DELRULE, &ipRule{v6: v6, priority: detourRule + n}) != nil {
					break
				}
			}
		}
		_ = t.noWayBack(v6)
	}
}
