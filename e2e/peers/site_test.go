package peers

import (
	"net/netip"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// addrs reads an IPv4 and an IPv6 address.
func addrs(v4, v6 string) [2]netip.Addr {
	return [2]netip.Addr{netip.MustParseAddr(v4), netip.MustParseAddr(v6)}
}

// inner gives the peer's host its end of the tunnels.
func inner(h *lab.Host) {
	h.Run("ip", "addr", "add", innerTheirs[0].String()+"/32", "dev", "lo")
	h.Run("ip", "addr", "add", innerTheirs[1].String()+"/128", "dev", "lo", "nodad")
}

// directSite has nobody between us and the peer.
func directSite(t *testing.T, settings string) *site {
	return directSiteOf(t, (*lab.Host).Charon, settings)
}

// directSiteOf is that with a strongSwan of one's choice.
func directSiteOf(t *testing.T, charon func(*lab.Host, string) *lab.Charon, settings string) *site {
	_, us, them := lab.Pair(t)
	s := &site{host: us, ours: addrs("10.77.0.2", "fd77::2"), theirs: addrs("10.77.0.1", "fd77::1")}
	s.oursSeen, s.theirsSeen, s.userSpace = s.ours, s.theirs, true
	inner(them)
	s.peer, s.peerHost = charon(them, settings), them
	s.move = func() { them.Run("sh", "-c", changeAddress("s0")) }
	return s
}

// changeAddress is a command by which the peer gets another IPv4 address in
// place of its own.
func changeAddress(dev string) string {
	return "sysctl -q -w net.ipv4.conf.all.promote_secondaries=1 && ip addr add 10.77.0.9/24 dev " + dev + " && ip addr del 10.77.0.1/24 dev " + dev
}

// roams gives us another address, for rows that change it.
func roams(s *site) *site {
	s.more = []netip.Addr{netip.MustParseAddr("10.77.0.4")}
	s.host.Run("ip", "addr", "add", "10.77.0.4/24", "dev", "c0")
	return s
}

// natSite has a router that translates between them, for the one that is
// inside: us or the peer. The peer's ESP is its own, or with kernel that of a
// guest's kernel.
//
//	inside .2 --- 10.78.0.0/24 --- .1 router .3 --- 10.77.0.0/24 --- .1 outside
func natSite(t *testing.T, usInside, kernel bool) *site {
	l := lab.New(t)
	lab.Need(t, "nft")
	us, router := l.Host("us"), l.Host("router")
	var guest *lab.Guest
	var them *lab.Host
	if kernel {
		guest = l.Guest("guest")
	} else {
		them = l.Host("them")
	}
	join := func(peer bool, dev string, own []string, at string, router4, router6 string) {
		theirs := []string{router4, router6}
		switch {
		case !peer:
			l.Join(us, dev, own, router, at, theirs)
		case kernel:
			guest.Join(router, at, theirs, own)
		default:
			l.Join(them, dev, own, router, at, theirs)
		}
	}
	join(!usInside, "in0", []string{"10.78.0.2/24", "fd78::2/64"}, "r0", "10.78.0.1/24", "fd78::1/64")
	join(usInside, "o0", []string{"10.77.0.1/24", "fd77::1/64"}, "r1", "10.77.0.3/24", "fd77::3/64")
	router.Sysctl("net.ipv4.ip_forward", "1")
	router.Sysctl("net.ipv6.conf.all.forwarding", "1")
	inside := us.Run
	switch {
	case usInside:
	case kernel:
		inside = guest.Run
	default:
		inside = them.Run
	}
	inside("ip", "route", "add", "default", "via", "10.78.0.1")
	inside("ip", "-6", "route", "add", "default", "via", "fd78::1")
	for _, family := range []string{"ip", "ip6"} {
		router.Run("nft", "add table "+family+" t; add chain "+family+" t c { type nat hook postrouting priority srcnat; }; add rule "+family+" t c oifname r1 masquerade random")
	}
	in, out, seen := addrs("10.78.0.2", "fd78::2"), addrs("10.77.0.1", "fd77::1"), addrs("10.77.0.3", "fd77::3")
	s := &site{host: us, ours: in, theirs: out, theirsSeen: out, mapped: seen, userSpace: !kernel}
	if !usInside {
		s = &site{host: us, ours: out, theirs: in, oursSeen: out, theirsSeen: seen, userSpace: !kernel}
	}
	if kernel {
		innerGuest(guest)
		s.peer = guest.Charon("")
	} else {
		inner(them)
		s.peer = them.Charon("")
	}
	return s
}

// innerGuest is inner for a guest.
func innerGuest(g *lab.Guest) {
	g.Run("ip", "addr", "add", innerTheirs[0].String()+"/32", "dev", "lo")
	g.Run("ip", "addr", "add", innerTheirs[1].String()+"/128", "dev", "lo", "nodad")
}

// kernelSite is a peer whose ESP is the kernel's: a guest, on one wire with us.
func kernelSite(t *testing.T, settings string) *site {
	return kernelSiteOf(t, (*lab.Guest).Charon, settings)
}

// kernelSiteOf is that with a strongSwan of one's choice.
func kernelSiteOf(t *testing.T, charon func(*lab.Guest, string) *lab.Charon, settings string) *site {
	l := lab.New(t)
	guest, us := l.Guest("guest"), l.Host("us")
	guest.Join(us, "c0", []string{"10.77.0.2/24", "fd77::2/64"}, []string{"10.77.0.1/24", "fd77::1/64"})
	s := &site{host: us, ours: addrs("10.77.0.2", "fd77::2"), theirs: addrs("10.77.0.1", "fd77::1")}
	s.oursSeen, s.theirsSeen = s.ours, s.theirs
	innerGuest(guest)
	s.peer = charon(guest, settings)
	s.move = func() { guest.Run("sh", "-c", changeAddress("vec0")) }
	return s
}
