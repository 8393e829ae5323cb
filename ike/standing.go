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
	// maxPages bounds a book of who has begun here: about 100 bytes for each
	// address.
	maxPages = 1 << 16
)

// book remembers addresses, the latest most that were written.
type book struct {
	most  int
	pages map[netip.Prefix]page
	order list.List // of netip.Prefix, oldest first
}

type page struct {
	at    time.Time
	place *list.Element
}

func newBook(most int) *book { return &book{most: most, pages: map[netip.Prefix]page{}} }

func (b *book) write(a netip.Prefix, now time.Time) {
	if p, ok := b.pages[a]; ok {
		b.order.MoveToBack(p.place)
		b.pages[a] = page{now, p.place}
		return
	}
	if len(b.pages) >= b.most {
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

// places are IKE SAs that others may take the place of, by standing, oldest
// first.
type places [standings]list.List

// makeRoom finds the IKE SA that gives its place to a newcomer of a standing;
// nil: none does. Of those that stand worst the oldest goes, and one that stands
// as the newcomer does only when it has been silent for long enough: not while it
// waits for us.
func (p *places) makeRoom(s standing, now time.Time, patience time.Duration) *ikeSA {
	for worst := suspect; worst >= s; worst-- {
		if e := p[worst].Front(); e != nil {
			sa := e.Value.(*ikeSA)
			if worst > s || sa.job == nil && now.Sub(sa.heard) >= patience {
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
		// A list leaves alone what is not in it.
		g.places[sa.standing].MoveToBack(sa.place)
		g.eapPlaces[sa.standing].MoveToBack(sa.place)
	}
}

// waited notes that a half-open IKE SA could not go on before now: it waited for
// us.
func (g *guard) waited(sa *ikeSA, now time.Time) {
	if sa.place == nil {
		return
	}
	sa.heard = now
	g.places[sa.standing].MoveToBack(sa.place)
	g.eapPlaces[sa.standing].MoveToBack(sa.place)
}

func (g *guard) losePlace(sa *ikeSA) {
	if sa.place != nil {
		g.places[sa.standing].Remove(sa.place)
		g.eapPlaces[sa.standing].Remove(sa.place)
		sa.place = nil
	}
}

const (
	// eapSilence is how long an IKE SA in the middle of EAP keeps its place
	// after its last message, when somebody of the same standing wants it. It
	// is longer than patience: somebody may be about to type a PIN.
	eapSilence = 2 * time.Second
	// eapPerAddr is how many of them an address may have from which nobody
	// has authenticated. Where somebody has, a site may be behind it, which may
	// have as many as half-open IKE SAs.
	eapPerAddr = 4
)

// enterEAP gives an IKE SA a place among those in the middle of EAP, of which
// there are fewer. False: there is none. old is the one that must go for it.
func (g *guard) enterEAP(sa *ikeSA, l *Limits, now time.Time) (old *ikeSA, ok bool) {
	stands := g.standing(sa.counted, now) // it may have changed since IKE_SA_INIT
	most := eapPerAddr
	if stands == proven {
		most = l.HalfOpenPerAddr
	}
	switch {
	case g.eapPerAddr[sa.counted] >= most:
		if old = g.oldestEAP(sa.counted); old == nil || now.Sub(old.heard) < eapSilence {
			return nil, false
		}
	case g.eap >= l.EAP:
		if old = g.eapPlaces.makeRoom(stands, now, eapSilence); old == nil {
			return nil, false
		}
	}
	g.losePlace(sa)
	sa.standing = stands
	sa.place = g.eapPlaces[sa.standing].PushBack(sa)
	g.eap++
	g.eapPerAddr[sa.counted]++
	return old, true
}

func (g *guard) leaveEAP(sa *ikeSA) {
	g.eap--
	uncount(g.eapPerAddr, sa.counted)
}

// oldestEAP is the one of an address that has been silent for longest.
func (g *guard) oldestEAP(a netip.Prefix) (old *ikeSA) {
	for s := range g.eapPlaces {
		for e := g.eapPlaces[s].Front(); e != nil; e = e.Next() {
			if sa := e.Value.(*ikeSA); sa.counted == a && (old == nil || sa.heard.Before(old.heard)) {
				old = sa
			}
		}
	}
	return old
}

// holdFragments books what a half-open IKE SA holds of a message in fragments. All
// of them together have one budget, in bytes: who stands worst loses what it has
// sent so far, the oldest first, and may send it again. dropped is how many did.
func (g *guard) holdFragments(sa *ikeSA, budget int) (dropped int) {
	if !sa.counted.IsValid() {
		return 0
	}
	g.bookFragments(sa)
	for worst := suspect; g.fragmentBytes > budget; {
		e := g.fragments[worst].Front()
		if e == nil {
			worst--
			continue
		}
		loser := e.Value.(*ikeSA)
		loser.inFrag = reassembly{}
		g.bookFragments(loser)
		dropped++
	}
	return dropped
}

func (g *guard) bookFragments(sa *ikeSA) {
	g.fragmentBytes += sa.inFrag.size - sa.fragBytes
	sa.fragBytes = sa.inFrag.size
	switch {
	case sa.fragBytes > 0 && sa.fragPlace == nil:
		sa.fragStanding = sa.standing
		sa.fragPlace = g.fragments[sa.fragStanding].PushBack(sa)
	case sa.fragBytes == 0 && sa.fragPlace != nil:
		g.fragments[sa.fragStanding].Remove(sa.fragPlace)
		sa.fragPlace = nil
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
