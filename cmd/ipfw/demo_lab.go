package main

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespace is a network namespace without a name. It lives in one thread,
// which runs what do hands it, and ends with it.
type namespace struct {
	jobs chan func()
	fd   netns.NsHandle
}

// newNamespace makes a namespace with a loopback that is up.
func newNamespace() (*namespace, error) {
	n := &namespace{jobs: make(chan func())}
	made := make(chan error)
	go func() {
		// Never unlocked: a thread in another namespace must not go back to
		// the pool. It ends with this goroutine.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			n.fd, err = netns.Get()
		}
		made <- err
		if err != nil {
			return
		}
		for job := range n.jobs {
			job()
		}
	}()
	if err := <-made; err != nil {
		return nil, fmt.Errorf("cannot make a network namespace: %w", err)
	}
	err := n.do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
	if err != nil {
		n.close()
		return nil, fmt.Errorf("cannot set the loopback up: %w", err)
	}
	return n, nil
}

// do runs f in the namespace's thread: sockets and processes that it makes
// belong to the namespace, also afterwards. Goroutines that it starts do not.
func (n *namespace) do(f func() error) error {
	done := make(chan error)
	n.jobs <- func() { done <- f() }
	return <-done
}

// close gives the namespace up; the kernel removes it when its last socket
// and process are gone.
func (n *namespace) close() {
	close(n.jobs)
	n.fd.Close()
}

// The addresses of the demo, from the blocks for documentation (RFC 5737,
// RFC 3849).
var (
	serverAddrs   = []netip.Addr{netip.MustParseAddr("198.51.100.10"), netip.MustParseAddr("2001:db8:1::10")}
	strangerAddrs = []netip.Addr{netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("2001:db8:2::9")}
)

const demoLink = "net0"

// demoPatience is how long the demo waits for what must come on any machine: a slow
// one with much to do takes half a minute to start a daemon.
const demoPatience = 2 * time.Minute

// lab is the two namespaces and the cable between them.
type lab struct {
	client, server *namespace
	noIPv6         error // why there is no IPv6 here; nil: there is
}

// newLab makes a lab with the addresses of both sides.
func newLab(client, server []netip.Addr) (_ *lab, err error) {
	l := new(lab)
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if l.client, err = newNamespace(); err != nil {
		return nil, err
	}
	if l.server, err = newNamespace(); err != nil {
		return nil, err
	}
	err = l.client.do(func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: demoLink}, PeerName: demoLink,
			PeerNamespace: netlink.NsFd(l.server.fd),
		})
	})
	if err != nil {
		return nil, fmt.Errorf("cannot make a veth pair: %w", err)
	}
	sides := []struct {
		ns    *namespace
		addrs []netip.Addr
	}{{l.client, client}, {l.server, server}}
	for _, side := range sides {
		if err := side.ns.do(func() error { return l.configure(side.addrs) }); err != nil {
			return nil, err
		}
	}
	if l.noIPv6 != nil {
		return l, nil
	}
	for _, side := range sides {
		if err := side.ns.do(func() error { return awaitIPv6(side.addrs) }); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// awaitIPv6 waits until the link takes what is for these addresses and hears
// neighbour solicitations. The kernel does its part of both when it has seen the
// carrier, which takes time on a busy machine, and a first packet to an address
// that nobody answers for is lost.
func awaitIPv6(addrs []netip.Addr) error {
	var want []netip.Prefix
	for _, a := range addrs {
		if a.Is6() {
			want = append(want, netip.PrefixFrom(a, 128))
		}
	}
	want = append(want, netip.MustParsePrefix("ff00::/8"))
	local := &netlink.Route{Table: unix.RT_TABLE_LOCAL}
	for deadline := time.Now().Add(demoPatience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_V6, local, netlink.RT_FILTER_TABLE)
		if err != nil {
			return fmt.Errorf("cannot list the routes of %s: %w", demoLink, err)
		}
		has := func(p netip.Prefix) bool {
			return slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Dst != nil && r.Dst.String() == p.String() })
		}
		if !slices.ContainsFunc(want, func(p netip.Prefix) bool { return !has(p) }) {
			return nil
		}
	}
	return fmt.Errorf("%s has no IPv6 after %v: the kernel has not seen its carrier", demoLink, demoPatience)
}

// configure gives the link of the current namespace its addresses and makes
// everything reachable over it: the other side of the cable is the world.
func (l *lab) configure(addrs []netip.Addr) error {
	link, err := netlink.LinkByName(demoLink)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	for _, a := range addrs {
		addr := &netlink.Addr{IPNet: netlink.NewIPNet(a.AsSlice())}
		if a.Is6() {
			// Nobody else is on this cable: no need to wait for duplicate
			// address detection (RFC 4862 section 5.4).
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(link, addr); err != nil {
			if a.Is6() && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EOPNOTSUPP)) {
				l.noIPv6 = err // switched off by sysctl or at boot
				continue
			}
			return fmt.Errorf("cannot set the address %s: %w", a, err)
		}
	}
	for _, all := range []string{"0.0.0.0/0", "::/0"} {
		if all == "::/0" && l.noIPv6 != nil {
			continue
		}
		dst, err := netlink.ParseIPNet(all)
		if err != nil {
			return err
		}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, Scope: netlink.SCOPE_LINK}); err != nil {
			return fmt.Errorf("cannot set the route %s: %w", all, err)
		}
	}
	return nil
}

// close gives up what there is of the lab.
func (l *lab) close() {
	for _, n := range []*namespace{l.client, l.server} {
		if n != nil {
			n.close()
		}
	}
}

// probes lists the connections to try: the stranger everywhere, and the
// administrators to ssh.
func (l *lab) probes(admins []netip.Addr) (ps []*probe) {
	add := func(who string, from netip.Addr, port uint16) {
		to := serverAddrs[0]
		if from.Is6() {
			if l.noIPv6 != nil {
				return
			}
			to = serverAddrs[1]
		}
		dst := netip.AddrPortFrom(to, port)
		ps = append(ps, &probe{Who: who, From: from.String(), To: dst.String(), port: port,
			Packet: fmt.Sprintf("in tcp %s -> %s syn", netip.AddrPortFrom(from, 40000), dst)})
	}
	for _, from := range strangerAddrs {
		for _, port := range demoPorts {
			add("a stranger", from, port)
		}
	}
	for _, from := range admins {
		add("an administrator", from, 22)
	}
	return ps
}
