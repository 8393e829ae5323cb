package ike

import (
	"container/list"
	"net/netip"
	"time"
)

// standing is what an address has shown of itself lately. Under attack, who has
// shown something gives way to who has not.
//
//	attacker with 4,096 addresses        honest caller
//	INIT, cookie, INIT, then garbage     INIT, cookie, INIT, AUTH
//	 `-> half-open for ever              `-> finds no place
//
// Both are new the first time. The attacker's half-open IKE SAs grow old, the
// oldest gives its place up, and its address is a suspect from then on: what it
// begins gives its place to anybody better, at once.
type standing uint8

const (
	proven  standing = iota // somebody there has authenticated
	unknown                 // nothing is known
	suspect                 // began and did not authenticate, and no one there did since
	standings
)

const (
	// patience is how long a half-open IKE SA keeps its place after its last
	// authentic message, when all places are taken and somebody of the same
	// standing wants one. Attackers with as many new addresses as there are
	// places keep others out for so long.
	patience = 500 * time.Millisecond
	// suspicion is how long an address is a suspect.
	suspicion = 2 * time.Minute
	// maxPages bounds each book: about 100 bytes for each address.
	maxPages = 1 << 16
)

// book remembers addresses, the latest maxPages that were written.
type book struct {
	pages map[netip.Prefix]page
	order list.List // of netip.Prefix, oldest first
}

type page struct {
	at    time.Time
	place *list.Element
}

func newBook() *book { return &book{pages: map[netip.Prefix]page{}} }

func (b *book) write(a netip.Prefix, now time.Time) {
	if p, ok := b.pages[a]; ok {
		b.order.MoveToBack(p.place)
		b.pages[a] = page{now, p.place}
		return
	}
	if len(b.pages) >= maxPages {
		b.erase(b.order.Front().Value.(netip.Prefix))
	}
	b.pages[a] = page{now, b.order.PushBack(a)}
}

func (b *book) erase(a netip.Prefix) {
	if p, ok := b.pages[a]; ok {
		b.order.Remove(p.place)
		delete(b.pages, a)
	}
}

// standing says how an address stands. It may be one of a whole site.
func (g *guard) standing(a netip.Prefix, now time.Time) standing {
	if len(g.suspects.pages) > 0 {
		if p, ok := g.suspects.pages[a]; ok && now.Sub(p.at) < suspicion {
			return suspect
		}
	}
	if _, ok := g.trusted.pages[a]; ok {
		return proven
	}
	return unknown
}

// praise is for an address from which somebody has authenticated.
func (g *guard) praise(a netip.Prefix, now time.Time) {
	g.suspects.erase(a)
	g.trusted.write(a, now)
}

// blame is for an address that can hear us (it has answered to something that
// we sent there), and from which somebody began and did not authenticate.
func (g *guard) blame(a netip.Prefix, now time.Time) { g.suspects.write(a, now) }

// makeRoom finds the half-open IKE SA that gives its place to a newcomer of a
// standing; nil: none does. Of those that stand worst the oldest goes, and one
// that stands as the newcomer does only when it has had its time.
func (g *guard) makeRoom(s standing, now time.Time) *ikeSA {
	for worst := suspect; worst >= s; worst-- {
		if e := g.places[worst].Front(); e != nil {
			sa := e.Value.(*ikeSA)
			if worst > s || now.Sub(sa.heard) >= patience {
				return sa
			}
		}
		if worst == 0 {
			break
		}
	}
	return nil
}

// goesOn notes an authentic message of a half-open IKE SA.
func (g *guard) goesOn(sa *ikeSA) {
	if sa.hears = true; sa.place != nil {
		g.places[sa.standing].MoveToBack(sa.place)
	}
}

// keepPlace has an IKE SA keep its place whoever comes: it has a limit of its
// own.
func (g *guard) keepPlace(sa *ikeSA) {
	if sa.place != nil {
		g.places[sa.standing].Remove(sa.place)
		sa.place = nil
	}
}

// Suspect says that a datagram is part of a handshake and comes from an address
// from which somebody has begun without authenticating. Whoever has others
// waiting may let it wait.
func (c *Core) Suspect(now time.Time, d Datagram) bool {
	if len(c.guard.suspects.pages) == 0 || len(d.Data) < headerLen || d.Data[19]&flagResponse != 0 {
		return false
	}
	switch d.Data[18] {
	case exIKESAInit, exIntermediate, exIKEAuth:
		return c.guard.standing(group(d.Remote.Addr().Unmap()), now) == suspect
	}
	return false
}
