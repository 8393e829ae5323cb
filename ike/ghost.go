package ike

import (
	"crypto/sha256"
	"net/netip"
	"time"
)

// ghosts remember the last answer of IKE SAs that are gone, so that a peer
// whose Delete was answered, but the answer lost, gets it again instead of
// silence. They hold no keys: a retransmission is the same bytes again.
type ghosts struct {
	m     map[uint64]ghost
	order []uint64 // oldest first
}

type ghost struct {
	id    uint32
	hash  [32]byte
	reply [][]byte
	at    time.Time
	peer  netip.Addr // where it was: the answer goes nowhere else
}

const (
	ghostTime = 70 * time.Second
	maxGhosts = 4096
)

func (g *ghosts) add(sa *ikeSA, now time.Time) {
	if len(sa.lastReply) == 0 {
		return
	}
	if len(g.order) >= maxGhosts {
		delete(g.m, g.order[0])
		g.order = g.order[1:]
	}
	g.m[sa.mine()] = ghost{sa.nextIn - 1, sa.lastHash, sa.lastReply, now.Add(ghostTime), sa.remote.Addr()}
	g.order = append(g.order, sa.mine())
}

func (g *ghosts) has(spi uint64) bool { _, ok := g.m[spi]; return ok }

func (g *ghosts) answer(spi uint64, h header, from netip.Addr, b []byte) ([][]byte, bool) {
	x, ok := g.m[spi]
	if !ok || from != x.peer || h.response() || h.id != x.id || sha256.Sum256(b) != x.hash {
		return nil, false
	}
	return x.reply, true
}

func (g *ghosts) expire(now time.Time) {
	for len(g.order) > 0 && !g.m[g.order[0]].at.After(now) {
		delete(g.m, g.order[0])
		g.order = g.order[1:]
	}
}
