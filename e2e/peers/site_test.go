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
	s.peer = charon(them, settings)
	return s
}

// natSite has a router that translates between them, for the one that is
// inside: us or the peer.
//
//	inside .2 --- 10.78.0.0/24 --- .1 router .3 --- 10.77.0.0/24 --- .1 outside
func natSite(t *testing.T, usInside bool, settings string) *site {
	l := lab.New(t)
	lab.Need(t, "nft")
	inside, router, outside := l.Host("inside"), l.Host("router"), l.Host("outside")
	l.Join(inside, "in0", []string{"10.78.0.2/24", "fd78::2/64"}, router, "r0", []string{"10.78.0.1/24", "fd78::1/64"})
	l.Join(router, "r1", []string{"10.77.0.3/24", "fd77::3/64"}, outside, "o0", []string{"10.77.0.1/24", "fd77::1/64"})
	router.Sysctl("net.ipv4.ip_forward", "1")
	router.Sysctl("net.ipv6.conf.all.forwarding", "1")
	inside.Run("ip", "route", "add", "default", "via", "10.78.0.1")
	inside.Run("ip", "-6", "route", "add", "default", "via", "fd78::1")
	for _, family := range []string{"ip", "ip6"} {
		router.Run("nft", "add table "+family+" t; add chain "+family+" t c { type nat hook postrouting priority srcnat; }; add rule "+family+" t c oifname r1 masquerade random")
	}
	in, out, seen := addrs("10.78.0.2", "fd78::2"), addrs("10.77.0.1", "fd77::1"), addrs("10.77.0.3", "fd77::3")
	s := &site{host: inside, ours: in, theirs: out, theirsSeen: out, userSpace: true}
	them := outside
	if !usInside {
		s = &site{host: outside, ours: out, theirs: in, oursSeen: out, theirsSeen: seen, userSpace: true}
		them = inside
	}
	inner(them)
	s.peer = them.Charon(settings)
	return s
}

// kernelSite is a peer whose ESP is the kernel's: a guest, on one wire with us.
func kernelSite(t *testing.T, settings string) *site {
	l := lab.New(t)
	guest, us := l.Guest("guest"), l.Host("us")
	guest.Join(us, "c0", []string{"10.77.0.2/24", "fd77::2/64"}, []string{"10.77.0.1/24", "fd77::1/64"})
	s := &site{host: us, ours: addrs("10.77.0.2", "fd77::2"), theirs: addrs("10.77.0.1", "fd77::1")}
	s.oursSeen, s.theirsSeen = s.ours, s.theirs
	guest.Run("ip", "addr", "add", innerTheirs[0].String()+"/32", "dev", "lo")
	guest.Run("ip", "addr", "add", innerTheirs[1].String()+"/128", "dev", "lo", "nodad")
	s.peer = guest.Charon(settings)
	return s
}
