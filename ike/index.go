package ike

import (
	"net/netip"
	"slices"
)

// index finds IKE SAs without a walk over all of them: a gateway has tens of
// thousands, nearly all of one ike block.
type index struct {
	ofPeer map[*Peer]map[*ikeSA]struct{}
	at     map[spot][]*ikeSA
	ids    map[uint64]*child // by ChildSA.ID
}

// spot is where the other end of an IKE SA is, or was called.
type spot struct {
	peer *Peer
	addr netip.Addr
}

func newIndex() index {
	return index{ofPeer: map[*Peer]map[*ikeSA]struct{}{}, at: map[spot][]*ikeSA{}, ids: map[uint64]*child{}}
}

// place enters an IKE SA where it belongs now. It is called by settle, after
// everything that changes one.
func (x *index) place(sa *ikeSA) {
	var now [2]spot
	if sa.peer != nil && sa.state != stDead {
		now[0] = spot{sa.peer, sa.remote.Addr()}
		if sa.callee.IsValid() && sa.callee.Addr() != sa.remote.Addr() {
			now[1] = spot{sa.peer, sa.callee.Addr()}
		}
	}
	if now == sa.spots {
		return
	}
	for _, s := range sa.spots {
		if s.peer == nil {
			continue
		}
		list := x.at[s]
		if i := slices.Index(list, sa); i >= 0 {
			list = slices.Delete(list, i, i+1)
		}
		if x.at[s] = list; len(list) == 0 {
			delete(x.at, s)
		}
	}
	if was := sa.spots[0].peer; was != nil && was != now[0].peer {
		if delete(x.ofPeer[was], sa); len(x.ofPeer[was]) == 0 {
			delete(x.ofPeer, was)
		}
	}
	sa.spots = now
	for _, s := range now {
		if s.peer != nil {
			x.at[s] = append(x.at[s], sa)
		}
	}
	if p := now[0].peer; p != nil {
		if x.ofPeer[p] == nil {
			x.ofPeer[p] = map[*ikeSA]struct{}{}
		}
		x.ofPeer[p][sa] = struct{}{}
	}
}
