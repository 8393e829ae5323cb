package ike

import "net/netip"

// localTS and remoteTS are the most that a child may have: what the policy
// says, or the endpoint itself, or the addresses that were leased. A
// transport mode SA carries the endpoints' own packets and no others. Of a pool
// nobody has more than a lease: who has none has nothing, in whatever exchange.
func (sa *ikeSA) localTS(cfg *Child) []TrafficSelector {
	if cfg.Local.IsValid() && cfg.Local != sa.local.Addr() {
		return nil // this child is at another address of ours
	}
	return sa.limitTS(cfg, cfg.LocalTS, sa.assigned, sa.local.Addr())
}

func (sa *ikeSA) remoteTS(cfg *Child) []TrafficSelector {
	if cfg.Endpoint.IsValid() && cfg.Endpoint != sa.remote.Addr() {
		return nil // this child is for another peer
	}
	if sa.unlent(cfg) || sa.unshown() && sa.ownAddress(cfg) {
		return nil
	}
	return sa.limitTS(cfg, cfg.RemoteTS, sa.lease.addrs(), sa.remote.Addr())
}

// unlent says that a caller has no address of our pool, and so can have no tunnel.
func (sa *ikeSA) unlent(cfg *Child) bool {
	return sa.peer.lends(cfg) && len(sa.lease.addrs()) == 0
}

// lentToOthers refuses selectors of a peer with an address that is lent to
// another IKE SA: what is for one is never sent to another.
func (c *Core) lentToOthers(sa *ikeSA, remote []TrafficSelector) (fail Event) {
	if len(sa.peer.Pools) == 0 {
		return Event{}
	}
	if a, taken := c.leases.ofOthers(sa.lease, remote); taken {
		return Event{Failure: NoAddress, Theirs: selectorText(remote), Detail: a.String() + " is lent to another caller", Setting: "pool"}
	}
	return Event{}
}

// outOf tells what a child may hold, of which the peer has asked for nothing, and
// by what the two differ. Of a child that is for other addresses than those of the
// two sides, it is what the policy has.
func (sa *ikeSA) outOf(cfg *Child, theirLocal, theirRemote []TrafficSelector) (ours, setting string) {
	local, remote := sa.localTS(cfg), sa.remoteTS(cfg)
	if len(local) == 0 {
		local = cfg.LocalTS
	}
	if len(remote) == 0 {
		remote = cfg.RemoteTS
	}
	return sidesText(local, remote), differing(local, remote, theirLocal, theirRemote)
}

func (sa *ikeSA) limitTS(cfg *Child, ts []TrafficSelector, leased []netip.Addr, end netip.Addr) []TrafficSelector {
	hosts := []TrafficSelector{selectorOfHost(end)}
	switch {
	case cfg.Mode == Transport:
	case len(leased) > 0:
		hosts = nil
		for _, a := range leased {
			hosts = append(hosts, selectorOfHost(a))
		}
	case len(ts) > 0:
		return ts
	}
	if len(ts) == 0 {
		return hosts
	}
	return narrow(hosts, ts)
}
