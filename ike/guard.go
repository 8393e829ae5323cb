package ike

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"time"
)

// guard bounds what unauthenticated messages can make a Core do: how many
// half-open IKE SAs there are, in all and for one address, and how many
// failures of strangers become events.
type guard struct {
	total   int
	perAddr map[netip.Prefix]int
	eap     int // of them in the middle of EAP
	// eapPerAddr counts those like perAddr.
	eapPerAddr map[netip.Prefix]int

	places            places // the half-open IKE SAs
	eapPlaces         places // those in the middle of EAP, which are not in places
	trusted, suspects *book
	stalled           *book // single addresses of which people have been told that their calls do not go on
	// Half-open IKE SAs with a part of a message in fragments, oldest first,
	// and what all of them hold.
	fragments     places
	fragmentBytes int

	secret, previous []byte // of cookies
	generation       byte
	since            time.Time

	second time.Time
	events int
}

// group is the unit that limits count: an IPv4 address or an IPv6 /64, which
// is what one site has at least.
func group(a netip.Addr) netip.Prefix {
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p
}

// full says that an address has as many half-open IKE SAs as it may.
func (g *guard) full(a netip.Addr, l *Limits) bool { return g.perAddr[group(a)] >= l.HalfOpenPerAddr }

// wantsCookie says that a stranger must show first that it hears us: when there
// are many half-open IKE SAs, when there are some of its address already, and
// when others there have come to nothing.
// The limit for an address is beyond what can be reached without cookies, else
// a few messages in the name of a peer would shut that peer out.
func (g *guard) wantsCookie(a netip.Addr, l *Limits, now time.Time) bool {
	n := group(a)
	return g.total >= l.CookieAfter || g.perAddr[n] >= max(1, l.HalfOpenPerAddr/4) || g.standing(n, now) == suspect
}

func (g *guard) enter(sa *ikeSA) {
	sa.counted = group(sa.remote.Addr())
	g.total++
	g.perAddr[sa.counted]++
	sa.standing = g.standing(sa.counted, sa.created)
	sa.place = g.places[sa.standing].PushBack(sa)
}

func (g *guard) leave(sa *ikeSA) {
	if !sa.counted.IsValid() {
		return
	}
	g.losePlace(sa)
	sa.inFrag = reassembly{}
	g.bookFragments(sa)
	g.total--
	uncount(g.perAddr, sa.counted)
	sa.counted = netip.Prefix{}
}

func uncount(m map[netip.Prefix]int, a netip.Prefix) {
	if m[a]--; m[a] <= 0 {
		delete(m, a)
	}
}

// cookieLife is how long one secret makes cookies; it verifies them twice as
// long.
const cookieLife = 60 * time.Second

// cookie is the stateless proof that an address can hear us, RFC 7296 section
// 2.6: generation | HMAC(secret, Ni | IPi | port | SPIi).
func (g *guard) cookie(secret []byte, generation byte, h header, ni []byte, from netip.AddrPort) []byte {
	m := hmac.New(sha256.New, secret)
	m.Write(ni)
	m.Write(from.Addr().AsSlice())
	m.Write(binary.BigEndian.AppendUint16(nil, from.Port()))
	m.Write(binary.BigEndian.AppendUint64(nil, h.spiI))
	return m.Sum([]byte{generation})
}

// newCookie makes a cookie, with a new secret if the old one is due.
func (c *Core) newCookie(h header, ni []byte, from netip.AddrPort) ([]byte, error) {
	g := &c.guard
	if g.secret == nil || c.now.Sub(g.since) >= cookieLife {
		s, err := c.random(32)
		if err != nil {
			return nil, err
		}
		g.previous, g.secret, g.since = g.secret, s, c.now
		g.generation++
	}
	return g.cookie(g.secret, g.generation, h, ni, from), nil
}

func (g *guard) goodCookie(have []byte, h header, ni []byte, from netip.AddrPort) bool {
	if len(have) != 1+sha256.Size || g.secret == nil {
		return false
	}
	secret := g.secret
	switch have[0] {
	case g.generation:
	case g.generation - 1:
		secret = g.previous
	default:
		return false
	}
	return secret != nil && hmac.Equal(have, g.cookie(secret, have[0], h, ni, from))
}

// strangerEvents is how many failures of peers that have not authenticated
// become events in one second; the counters count them all.
const strangerEvents = 10

func (g *guard) mayReport(now time.Time) bool {
	if now.Sub(g.second) >= time.Second {
		g.second, g.events = now, 0
	}
	g.events++
	return g.events <= strangerEvents
}
