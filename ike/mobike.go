package ike

import (
	"bytes"
	"crypto/hmac"
	"net/netip"
	"slices"
)

// moveTask tells the peer of new addresses, RFC 4555 section 3.5, as the side
// that began the IKE SA.
type moveTask struct{}

func (t *moveTask) build(c *Core, sa *ikeSA) (uint8, []payload, bool) {
	list := append([]payload{note(nUpdateSAAddrs)}, c.natNotes(sa)...)
	return exInformational, list, sa.state == stUp
}

func (t *moveTask) answer(c *Core, sa *ikeSA, m *opened, ns notifies) {
	if n, ok := ns.failure(); ok {
		c.fail(sa, c.peerError(sa, n))
		return
	}
	if sa.state != stUp { // rekeyed meanwhile; the next move or probe tells
		return
	}
	here, there := sa.natHere, sa.natPeer
	sa.learnNAT(ns)
	if n, ok := ns.get(nNATDest); ok {
		sa.mapping = bytes.Clone(n.data)
	}
	if sa.natHere != here || sa.natPeer != there {
		c.moved(sa)
	}
}

// routeTask is the return routability check, RFC 4555 section 3.7: a peer that
// claims to be elsewhere must hear us there.
type routeTask struct {
	cookie []byte
	at     netip.Addr // where it was asked; zero: the peer has moved since
}

func (t *routeTask) build(c *Core, sa *ikeSA) (uint8, []payload, bool) {
	b, err := c.random(16)
	if err != nil || sa.state != stUp {
		return 0, nil, false
	}
	t.cookie, t.at = b, sa.remote.Addr()
	return exInformational, []payload{note(nCookie2, b...)}, true
}

func (t *routeTask) answer(c *Core, sa *ikeSA, m *opened, ns notifies) {
	if n, _ := ns.get(nCookie2); !hmac.Equal(n.data, t.cookie) {
		c.fail(sa, Event{Failure: Malformed, Detail: "the peer does not answer at its new address (COOKIE2)"})
		c.deleteIKE(sa)
		return
	}
	for ; t.at.IsValid() && sa != nil; sa = sa.next {
		sa.shown = t.at
	}
}

// probe asks whether the peer lives, and behind a NAT, as the side that can say
// so by MOBIKE, whether the NAT has another mapping now (RFC 4555 section 3.8).
func (sa *ikeSA) probe() task {
	if sa.mobike && sa.began && sa.natHere {
		return &mappingTask{}
	}
	return &infoTask{}
}

type mappingTask struct{}

func (t *mappingTask) build(c *Core, sa *ikeSA) (uint8, []payload, bool) {
	return exInformational, c.natNotes(sa), sa.state == stUp
}

func (t *mappingTask) answer(c *Core, sa *ikeSA, m *opened, ns notifies) {
	seen, ok := ns.get(nNATDest)
	if !ok || sa.state != stUp {
		return
	}
	// The SPIs are part of the hash: it means something for this IKE SA only.
	if sa.mapping != nil && !bytes.Equal(sa.mapping, seen.data) {
		sa.enqueueFirst(&moveTask{})
	}
	sa.mapping = bytes.Clone(seen.data)
}

// moved carries new addresses of an IKE SA over to its children.
func (c *Core) moved(sa *ikeSA) {
	for _, ch := range slices.Clone(sa.children) {
		was := ch.ChildSA
		if ch.Mode == Transport && (sa.local.Addr() != was.Local || sa.remote.Addr() != was.Remote) {
			// Its packets are from and to those very addresses (RFC 4555
			// section 1.3): another takes its place, when it is needed.
			c.deleteChild(sa, ch)
			if ch.cfg.Start && sa.began {
				sa.enqueue(&createTask{wish: wish{cfg: ch.cfg}})
			}
			continue
		}
		ch.place(sa)
		if ch.Local != was.Local || ch.Remote != was.Remote || ch.UDPEncap != was.UDPEncap ||
			ch.LocalPort != was.LocalPort || ch.RemotePort != was.RemotePort {
			c.act(Action{Kind: Move, Child: ch.ChildSA})
		}
	}
	c.event(sa, Event{Kind: Moved})
}

// moveLocal takes an IKE SA to another address of ours.
func (c *Core) moveLocal(sa *ikeSA, to netip.Addr) {
	if sa.state != stUp || !sa.mobike || !sa.began || to.BitLen() != sa.remote.Addr().BitLen() {
		return
	}
	sa.local = netip.AddrPortFrom(to, sa.local.Port())
	sa.caller = netip.AddrPortFrom(to, sa.caller.Port())
	c.moved(sa)
	// What is under way goes on from the new address; the peer answers
	// there, and learns of the move next (RFC 4555 section 3.5).
	if sa.req != nil {
		c.transmit(sa, sa.req.msgs)
	}
	sa.enqueueFirst(&moveTask{})
	c.settle(sa)
}
