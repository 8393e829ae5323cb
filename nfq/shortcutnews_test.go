package nfq

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	bpf "github.com/cilium/ebpf/link"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/ipfw/ipfw/packet"
	nl "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// obstacle is something that comes into the raw socket's way, and goes again.
type obstacle struct {
	name string
	set  func(s *bulk) (away func()) // nil: this kernel has no such thing
	// wire is the one that datagrams leave by then, or neither.
	wire int
	// stays says that the shortcut is not taken as long as the obstacle is there.
	stays bool
	// why is a part of what is said to be in the way then.
	why string
}

const neither, either = -1, -2

var obstacles = []obstacle{
	{"chain at output that drops ESP", foreignChain(nftables.ChainHookOutput, expr.VerdictDrop), neither, true, "chain elsewhere of table other"},
	{"chain at postrouting that accepts", foreignChain(nftables.ChainHookPostrouting, expr.VerdictAccept), 0, true, "chain elsewhere of table other"},
	{"route by another device", func(s *bulk) func() {
		r := &netlink.Route{Dst: host(s.addr(0, 2).AsSlice()), Gw: s.addr(1, 2).AsSlice()}
		return s.link(func() error { return netlink.RouteAdd(r) }, func() error { return netlink.RouteDel(r) })
	}, 1, false, ""},
	{"route with two next hops", func(s *bulk) func() {
		r := &netlink.Route{Dst: host(s.addr(0, 2).AsSlice()), MultiPath: []*netlink.NexthopInfo{
			{LinkIndex: s.index("eth0"), Gw: s.addr(0, 2).AsSlice(), Flags: unix.RTNH_F_ONLINK}, {LinkIndex: s.index("eth1"), Gw: s.addr(1, 2).AsSlice()},
		}}
		return s.link(func() error { return netlink.RouteAdd(r) }, func() error { return netlink.RouteDel(r) })
	}, either, true, "not a plain"},
	{"route with a smaller MTU", func(s *bulk) func() {
		r := &netlink.Route{Dst: host(s.addr(0, 2).AsSlice()), LinkIndex: s.index("eth0"), MTU: 1300}
		return s.link(func() error { return netlink.RouteAdd(r) }, func() error { return netlink.RouteDel(r) })
	}, neither, true, ""},
	{"route that prohibits", func(s *bulk) func() {
		r := &netlink.Route{Dst: host(s.addr(0, 2).AsSlice()), Type: unix.RTN_PROHIBIT}
		return s.link(func() error { return netlink.RouteAdd(r) }, func() error { return netlink.RouteDel(r) })
	}, neither, true, "route"},
	{"rule on the mark", func(s *bulk) func() {
		rule := netlink.NewRule()
		rule.Family, rule.Mark, rule.Invert, rule.Table, rule.Priority = int(family(s.addr(0, 2))), 1, true, 77, 77
		r := &netlink.Route{Dst: host(s.addr(0, 2).AsSlice()), Gw: s.addr(1, 2).AsSlice(), Table: 77}
		return s.link(func() error {
			if err := netlink.RouteAdd(r); err != nil {
				return err
			}
			return netlink.RuleAdd(rule)
		}, func() error { return netlink.RuleDel(rule) })
	}, 1, false, ""},
	{"rule on the protocol", func(s *bulk) func() {
		rule := netlink.NewRule()
		rule.Family, rule.IPProto, rule.Table, rule.Priority = int(family(s.addr(0, 2))), unix.IPPROTO_TCP, 77, 77
		return s.link(func() error { return netlink.RuleAdd(rule) }, func() error { return netlink.RuleDel(rule) })
	}, 0, true, "routing rule"},
	{"IPsec policy of the kernel", func(s *bulk) func() {
		p := &netlink.XfrmPolicy{Src: host(s.addr(1, 1).AsSlice()), Dst: host(s.addr(1, 7).AsSlice()), Dir: netlink.XFRM_DIR_OUT}
		return s.link(func() error { return netlink.XfrmPolicyAdd(p) }, func() error { return netlink.XfrmPolicyDel(p) })
	}, 0, true, "IPsec policies"},
	{"default IPsec policy that blocks", func(s *bulk) func() {
		const accept = 2 // XFRM_USERPOLICY_ACCEPT
		set := func(in, forward, out byte) func() error {
			return func() error {
				c, err := nl.Dial(unix.NETLINK_XFRM, nil)
				if err != nil {
					return err
				}
				defer c.Close()
				m := request(0x27, []byte{in, forward, out, 0}) // XFRM_MSG_SETDEFAULT
				m.Header.Flags |= nl.Acknowledge
				_, err = c.Execute(m)
				return err
			}
		}
		return s.link(set(accept, accept, xfrmPolicyBlock), set(accept, accept, accept))
	}, neither, true, "default IPsec policy"},
	{"neighbour with another address", func(s *bulk) func() {
		return s.neighbour(&netlink.Neigh{HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 0x77}, State: netlink.NUD_PERMANENT})
	}, 0, false, ""},
	{"neighbour that does not answer", func(s *bulk) func() {
		back := s.b.silent()
		away := s.neighbour(&netlink.Neigh{State: netlink.NUD_FAILED})
		return func() { back(); away() }
	}, neither, true, "neighbour"},
	{"device with a smaller MTU", func(s *bulk) func() {
		return s.eth0(func(l netlink.Link) error { return netlink.LinkSetMTU(l, 1300) }, func(l netlink.Link) error { return netlink.LinkSetMTU(l, 1500) })
	}, neither, true, ""},
	{"device that is down", func(s *bulk) func() {
		return s.eth0(netlink.LinkSetDown, func(l netlink.Link) error {
			if err := netlink.LinkSetUp(l); err != nil {
				return err
			}
			if s.v6 { // the address went with it
				a, err := netlink.ParseAddr(s.addr(0, 1).String() + "/64")
				if err != nil {
					return err
				}
				a.Flags = unix.IFA_F_NODAD
				return netlink.AddrReplace(l, a)
			}
			return nil
		})
	}, neither, true, ""},
	{"BPF program of netfilter", func(s *bulk) func() {
		prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.Netfilter, AttachType: ebpf.AttachNetfilter, License: "Apache-2.0",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}}) // NF_DROP
		if errors.Is(err, unix.EINVAL) {
			s.t.Log("this kernel has no BPF programs on netfilter hooks (CONFIG_NETFILTER_BPF_LINK, Linux 6.4)")
			return nil
		}
		if err != nil {
			s.t.Fatal(err)
		}
		pf := uint32(unix.NFPROTO_IPV4)
		if s.v6 {
			pf = unix.NFPROTO_IPV6
		}
		var l bpf.Link
		return s.link(func() error {
			l, err = bpf.AttachNetfilter(bpf.NetfilterOptions{Program: prog, ProtocolFamily: bpf.NetfilterProtocolFamily(pf),
				Hook: bpf.NetfilterInetLocalOut, Priority: 7})
			return err
		}, func() error { l.Close(); return prog.Close() })
	}, neither, true, "BPF program of netfilter"},
	{"table of iptables", func(s *bulk) func() { // last: it stays
		var err error
		s.a.do(func() { err = s.legacyTable() })
		if errors.Is(err, unix.ENOPROTOOPT) {
			s.t.Log("this kernel has iptables in nftables alone (CONFIG_IP_NF_IPTABLES_LEGACY)")
			return nil
		}
		if err != nil {
			s.t.Fatal(err)
		}
		return func() {}
	}, 0, true, "iptables table filter"},
}

// The shortcut is taken until something comes into the way, and again when it
// is gone. In between each datagram meets what the raw socket meets.
func TestShortcutObstacles(t *testing.T) {
	t.Parallel()
	bothFamilies(t, func(t *testing.T, v6 bool) {
		s := newBulk(t, v6, Config{})
		for _, o := range obstacles {
			s.until(true)
			away, begun := o.set(s), time.Now()
			if away == nil {
				continue
			}
			var first uint32
			if o.stays {
				first = s.closed(o, begun)
			} else {
				first = s.moved(o)
			}
			end := s.n + 1
			switch o.wire {
			case neither:
				time.Sleep(20 * time.Millisecond)
			case either:
				o.wire = 0
				if len(s.frames(1, first, end)) > 0 {
					o.wire = 1
				}
				fallthrough
			default:
				s.arrive(o.wire, first, end, int(end-first))
			}
			for wire := range s.eth {
				if got := s.frames(wire, first, end); wire != o.wire && len(got) > 0 {
					t.Errorf("%s: %d datagrams left by eth%d", o.name, len(got), wire)
				}
			}
			if why := s.fw.Stats().NotDirect; !strings.Contains(why, o.why) {
				t.Errorf("%s: the obstacle is said to be %q", o.name, why)
			}
			t.Logf("%s: %v", o.name, time.Since(begun))
			away()
		}
	})
}

// closed sends until the obstacle is known, so that no datagram takes the
// shortcut any more, and gives the sequence number of the first of these. That
// some go the long way is not enough: they do so each second.
func (s *bulk) closed(o obstacle, begun time.Time) (first uint32) {
	s.t.Helper()
	first = s.until(false)
	for n := 0; n < 20 || !strings.Contains(s.fw.Stats().NotDirect, o.why); n++ {
		time.Sleep(time.Millisecond)
		next, direct, _ := s.batch()
		if direct > 0 {
			first, n = s.until(false), 0
		}
		if time.Since(begun) > patience {
			s.t.Errorf("%s: datagram %d, of a batch of which %d took the shortcut; why not: %q", o.name, next, direct, s.fw.Stats().NotDirect)
			return first
		}
	}
	return first
}

// moved sends until datagrams take the shortcut as they should now, and gives
// the first sequence number of these.
func (s *bulk) moved(o obstacle) (first uint32) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		first, direct, _ := s.batch()
		if direct == 0 {
			continue
		}
		// By the old way or the new one, they arrive; a neighbour that the kernel has
		// just forgotten may cost some.
		var got [][]byte
		for wait := time.Now().Add(patience / 10); time.Now().Before(wait); time.Sleep(time.Millisecond) {
			got = s.frames(o.wire, first, first+shortcutBulk)
			if len(got)+len(s.frames(1-o.wire, first, first+shortcutBulk)) >= shortcutBulk {
				break
			}
		}
		if len(got) == shortcutBulk && (!strings.Contains(o.name, "neighbour") || got[0][5] == 0x77) {
			return first
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s: datagrams take the old way: %s", o.name, s.fw.Stats().NotDirect)
		}
	}
}

// What the control group has for packets that leave is on the raw socket's way.
func TestShortcutCgroup(t *testing.T) {
	t.Parallel()
	s := newBulk(t, false, Config{})
	own, err := ownCgroup()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(own)
	const name = "ipfw-test"
	if err := unix.Mkdirat(own, name, 0o755); err != nil {
		t.Fatal(err)
	}
	defer unix.Unlinkat(own, name, unix.AT_REMOVEDIR)
	child, err := unix.Openat(own, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(child)
	sc := &shortcut{cgroup: child}
	if err := sc.cgroupPrograms(); err != nil {
		t.Fatal(err)
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.CGroupSKB, AttachType: ebpf.AttachCGroupInetEgress, License: "Apache-2.0",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()}})
	if err != nil {
		t.Fatal(err)
	}
	defer prog.Close()
	if err := bpf.RawAttachProgram(bpf.RawAttachProgramOptions{Target: child, Program: prog, Attach: ebpf.AttachCGroupInetEgress}); err != nil {
		t.Fatal(err)
	}
	if err := sc.cgroupPrograms(); err == nil {
		t.Error("a program was not seen")
	}
	s.until(true)
}

// Without a packet socket all goes the old way.
func TestShortcutRefused(t *testing.T) {
	t.Parallel()
	s := newBulk(t, false, Config{noShortcut: true})
	for range 3 {
		first, direct, unsent := s.batch()
		if direct > 0 || unsent > 0 {
			t.Errorf("%d datagrams took the shortcut, %d were not sent", direct, unsent)
		}
		s.arrive(0, first, s.n+1, shortcutBulk)
	}
	s.fw.shortcut.undo()
}

// When the device refuses what takes the shortcut, the raw socket has it.
func TestShortcutFallsBack(t *testing.T) {
	t.Parallel()
	bothFamilies(t, func(t *testing.T, v6 bool) {
		s := newBulk(t, v6, Config{})
		s.until(true)
		s.hold(func(w *shortWay) { binary.NativeEndian.PutUint32(w.name[4:], 7777) }) // no such device
		first, direct, unsent := s.batch()
		if direct > 0 || unsent > 0 {
			t.Errorf("%d datagrams took the shortcut, %d were not sent", direct, unsent)
		}
		s.arrive(0, first, s.n+1, shortcutBulk)
	})
}

// No more destinations are known than there is room for, and those that nobody
// asks about any more are forgotten.
func TestShortcutKeep(t *testing.T) {
	s := new(shortcut)
	s.undo()
	at := addr4(0, 0)
	for range 2 * shortcutWays {
		at = at.Next()
		s.keep(&shortWay{to: at, until: shortcutLife, open: true})
	}
	if n := len(*s.ways.Load()); n != shortcutWays {
		t.Errorf("%d destinations are known", n)
	}
	s.keep(&shortWay{to: addr6(0, 1), until: 4 * shortcutLife})
	if n := len(*s.ways.Load()); n != 1 {
		t.Errorf("%d destinations are known", n)
	}
}

func host(ip net.IP) *net.IPNet {
	return &net.IPNet{IP: ip, Mask: net.CIDRMask(8*len(ip), 8*len(ip))}
}

// link does something on the firewall's host and gives what undoes it.
func (s *bulk) link(do, undo func() error) func() {
	s.t.Helper()
	s.a.try(do)
	return func() { s.t.Helper(); s.a.try(undo) }
}

func (s *bulk) eth0(do, undo func(netlink.Link) error) func() {
	with := func(f func(netlink.Link) error) func() error {
		return func() error {
			l, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			return f(l)
		}
	}
	return s.link(with(do), with(undo))
}

func (s *bulk) index(name string) (n int) {
	s.a.try(func() error {
		l, err := netlink.LinkByName(name)
		if err == nil {
			n = l.Attrs().Index
		}
		return err
	})
	return n
}

// neighbour replaces the entry of the peer.
func (s *bulk) neighbour(n *netlink.Neigh) func() {
	n.LinkIndex, n.IP, n.Family = s.index("eth0"), s.addr(0, 2).AsSlice(), int(family(s.addr(0, 2)))
	return s.link(func() error {
		if n.State != netlink.NUD_FAILED {
			return netlink.NeighSet(n)
		}
		_ = netlink.NeighDel(n) // it may have gone by itself
		return nil
	}, func() error {
		_ = netlink.NeighDel(n)
		return nil
	})
}

// silent makes a host answer to nothing, not even neighbours.
func (h *testHost) silent() (back func()) {
	var conn *nftables.Conn
	table := &nftables.Table{Name: "silent", Family: nftables.TableFamilyNetdev}
	h.try(func() (err error) {
		if conn, err = nftables.New(nftables.AsLasting()); err != nil {
			return err
		}
		drop := nftables.ChainPolicyDrop
		conn.AddTable(table)
		for _, dev := range []string{"eth0", "eth1"} {
			conn.AddChain(&nftables.Chain{Name: dev, Table: table, Type: nftables.ChainTypeFilter, Device: dev,
				Hooknum: nftables.ChainHookIngress, Priority: nftables.ChainPriorityFilter, Policy: &drop})
		}
		return conn.Flush()
	})
	return func() {
		conn.DelTable(table)
		if err := conn.Flush(); err != nil {
			h.t.Error(err)
		}
		conn.CloseLasting()
	}
}

func foreignChain(hook *nftables.ChainHook, kind expr.VerdictKind) func(*bulk) func() {
	return func(s *bulk) func() {
		table := &nftables.Table{Name: "other", Family: nftables.TableFamilyINet}
		flush := func(f func(c *nftables.Conn)) func() error {
			return func() error {
				c, err := nftables.New()
				if err != nil {
					return err
				}
				f(c)
				return c.Flush()
			}
		}
		return s.link(flush(func(c *nftables.Conn) {
			c.AddTable(table)
			chain := c.AddChain(&nftables.Chain{Name: "elsewhere", Table: table, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityRaw})
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
				meta(expr.MetaKeyL4PROTO), equal([]byte{packet.ESP}), &expr.Verdict{Kind: kind}}})
		}), flush(func(c *nftables.Conn) { c.DelTable(table) }))
	}
}

// legacyTable has iptables' filter table made, by asking for it
// (IPT_SO_GET_INFO, linux/netfilter_ipv4/ip_tables.h).
func (s *bulk) legacyTable() error {
	family, level := unix.AF_INET, unix.SOL_IP
	if s.v6 {
		family, level = unix.AF_INET6, unix.SOL_IPV6
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var info [84]byte
	copy(info[:], "filter")
	size := uint32(len(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), 64,
		uintptr(unsafe.Pointer(&info[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	if !bytes.HasPrefix(info[:], []byte("filter")) {
		return unix.EINVAL
	}
	return nil
}

// Whatever the news, there is no panic, and no way opens by it.
func FuzzShortcutNews(f *testing.F) {
	f.Add(uint16(unix.RTM_NEWROUTE), make([]byte, unix.SizeofRtMsg))
	f.Add(uint16(unix.RTM_DELNEIGH), make([]byte, sizeofNdMsg+8))
	f.Add(uint16(unix.RTM_NEWLINK), make([]byte, unix.SizeofIfInfomsg))
	f.Add(uint16(unix.RTM_NEWRULE), []byte{2})
	f.Fuzz(func(t *testing.T, typ uint16, data []byte) {
		s := new(shortcut)
		s.undo()
		to := addr4(0, 2)
		s.keep(&shortWay{to: to, until: shortcutLife, link: 7, hop: to})
		s.hear(nl.Message{Header: nl.Header{Type: nl.HeaderType(typ)}, Data: data})
		for to, w := range *s.ways.Load() {
			if w.open || to != w.to {
				t.Errorf("%v: %+v", to, w)
			}
		}
	})
}
