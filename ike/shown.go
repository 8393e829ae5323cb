package ike

import (
	"net/netip"
	"slices"
)

// This file is about where a peer is. Whoever has authenticated can write any
// address on its packets, and ask again elsewhere for an answer that went there.
// So what is for a peer's own address (see ownAddress) it gets only where it has
// shown that it hears us: where it was sent the secrets of IKE_SA_INIT, and where
// it has answered to a COOKIE2 (RFC 4555 section 3.7), which nobody can guess. A
// peer without MOBIKE that a NAT has taken elsewhere has to call again for such
// children, because no other answer tells that it has heard the question.

// unshown says that a peer is where it has not shown that it hears us.
func (sa *ikeSA) unshown() bool { return sa.remote.Addr() != sa.shown }

// ownAddress says that a peer has a child because of its address: the child is for
// this address, or carries what is to and from it.
func (sa *ikeSA) ownAddress(cfg *Child) bool {
	return cfg.Endpoint.IsValid() || cfg.Mode == Transport || len(cfg.RemoteTS) == 0 && len(sa.lease.addrs()) == 0
}

// checking says that a peer may be about to show that it hears us where it is, and
// that it would have more children then.
func (sa *ikeSA) checking() bool {
	return sa.unshown() && sa.mobike && slices.ContainsFunc(sa.peer.Children, sa.ownAddress)
}

// goTo sends to another address from now on. What is under way is sent there as
// well: its answer does not tell where it was heard.
func (sa *ikeSA) goTo(local, remote netip.AddrPort) {
	if sa.req != nil && remote.Addr() != sa.remote.Addr() {
		if t, ok := sa.req.task.(*routeTask); ok {
			t.at = netip.Addr{}
		}
	}
	sa.local, sa.remote = local, remote
}

// askThere asks a peer whether it is where it says. One such question is enough,
// however often it says so.
func (sa *ikeSA) askThere() {
	sa.queue = slices.DeleteFunc(sa.queue, func(q queued) bool {
		_, same := q.task.(*routeTask)
		return same
	})
	sa.enqueueFirst(&routeTask{})
}
