package ike

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// checkIndex holds the index of a Core against a walk over all it has.
func checkIndex(c *Core) error {
	spots, peers, entries := map[spot]int{}, map[*Peer]int{}, 0
	for _, sa := range c.sas {
		if sa.peer == nil {
			continue
		}
		peers[sa.peer]++
		if _, ok := c.index.ofPeer[sa.peer][sa]; !ok {
			return fmt.Errorf("IKE SA %d is not among those of its peer", sa.id)
		}
		at := []spot{{sa.peer, sa.remote.Addr()}}
		if sa.callee.IsValid() && sa.callee.Addr() != sa.remote.Addr() {
			at = append(at, spot{sa.peer, sa.callee.Addr()})
		}
		for _, s := range at {
			spots[s]++
			if !slices.Contains(c.index.at[s], sa) {
				return fmt.Errorf("IKE SA %d is not found at %s", sa.id, s.addr)
			}
		}
		for _, ch := range sa.children {
			entries++
			if c.index.ids[ch.ID] != ch || ch.home != sa {
				return fmt.Errorf("child %d is not found", ch.ID)
			}
		}
	}
	if len(spots) != len(c.index.at) || len(peers) != len(c.index.ofPeer) || entries != len(c.index.ids) {
		return fmt.Errorf("the index has %d addresses, %d peers, %d children; there are %d, %d, %d",
			len(c.index.at), len(c.index.ofPeer), len(c.index.ids), len(spots), len(peers), entries)
	}
	for s, list := range c.index.at {
		if len(list) != spots[s] {
			return fmt.Errorf("%d IKE SAs at %s, there are %d", len(list), s.addr, spots[s])
		}
	}
	for p, all := range c.index.ofPeer {
		if len(all) != peers[p] {
			return fmt.Errorf("%d IKE SAs of %s, there are %d", len(all), p.Name, peers[p])
		}
	}
	if len(c.gone) != len(c.going) {
		return fmt.Errorf("%d SPIs linger for %d children", len(c.gone), len(c.going))
	}
	return nil
}

// Leases are given as a search through the whole pool would give them: one for
// each, none twice, none refused while there is one that nobody holds, and whoever
// comes back has what he had.
func TestLeases(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	l := newLeases()
	p := &Peer{Name: "p", Pools: []netip.Prefix{netip.MustParsePrefix("10.99.0.0/28"), netip.MustParsePrefix("10.99.1.8/29"), netip.MustParsePrefix("fd99::/120")}}
	const room = 13 + 5
	held, had := map[int]leaseKey{}, map[int]netip.Addr{}
	for round := range 20000 {
		who := rng.IntN(40)
		if k, up := held[who]; up {
			l.release(k, uint64(who+1))
			delete(held, who)
			continue
		}
		k, ok := l.give(loan{peer: p, id: Identity{idFQDN, fmt.Sprint(who)}, holder: uint64(who + 1), want4: true, want6: rng.IntN(4) == 0})
		if ok && !k.ip4.IsValid() {
			ok = false // an IPv6 address alone
			l.release(k, uint64(who+1))
		}
		if ok != (len(held) < room) {
			t.Fatalf("round %d: %d are held of %d, another is given: %v", round, len(held), room, ok)
		}
		if !ok {
			continue
		}
		held[who] = k
		users := 0
		for _, o := range held {
			if o.ip4 == k.ip4 {
				users++
			}
		}
		if users != 1 || k.ip4.Compare(netip.MustParseAddr("10.99.0.1")) <= 0 || k.ip4 == netip.MustParseAddr("10.99.0.15") {
			t.Fatalf("round %d: %s is held by %d", round, k.ip4, users)
		}
		if was, ok := had[who]; ok && was != k.ip4 && len(l.m) < room {
			t.Fatalf("round %d: %d had %s, and has %s", round, who, was, k.ip4)
		}
		had[who] = k.ip4
	}
	l.forget("p")
	if len(l.m)+len(l.taken)+len(l.freed) != 0 {
		t.Error("something is left")
	}
}
