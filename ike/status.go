package ike

import (
	"net/netip"
	"time"
)

// IKEStatus is one IKE SA for people.
type IKEStatus struct {
	ID            uint64
	Peer          string
	Up            bool
	Initiator     bool // our side called
	SPIi, SPIr    uint64
	Local, Remote netip.AddrPort
	LocalID       Identity
	RemoteID      Identity
	Suite         string
	Since         time.Time // when it came up; of one that is not, when it began
	Rekey         time.Time // when it is due; zero: under way
	NAT, MOBIKE   bool
	Transcript    bool         // both sides have authenticated both IKE_SA_INIT messages
	Assigned      []netip.Addr // to us
	Leased        []netip.Addr // by us
	Children      []ChildStatus
}

// ChildStatus is one child for people; the SA has no keys.
type ChildStatus struct {
	ChildSA
	State string // "up", "replaced", "deleting"
	Using bool   // our traffic goes by it
	Rekey time.Time
}

// Status lists the IKE SAs and their children.
func (c *Core) Status() []IKEStatus { return c.StatusOf(c.SPIs()) }

// SPIs are our own of all IKE SAs, in the order in which they were made.
func (c *Core) SPIs() (out []uint64) {
	c.each("", func(sa *ikeSA) { out = append(out, sa.mine()) })
	return out
}

// StatusOf lists those of IKE SAs, named by our own SPIs, that are still there:
// of tens of thousands a part at a time, so that messages need not wait.
func (c *Core) StatusOf(spis []uint64) []IKEStatus {
	out := make([]IKEStatus, 0, len(spis))
	for _, spi := range spis {
		sa := c.sas[spi]
		if sa == nil {
			continue
		}
		s := IKEStatus{ID: sa.id, Up: sa.state == stUp, Initiator: sa.began, SPIi: sa.spiI, SPIr: sa.spiR,
			Local: sa.local, Remote: sa.remote, LocalID: sa.localID, RemoteID: sa.remoteID, Since: sa.up, Rekey: sa.rekeyAt,
			NAT: sa.natHere || sa.natPeer, MOBIKE: sa.mobike, Transcript: sa.transcript, Assigned: sa.assigned, Leased: sa.lease.addrs()}
		if sa.up.IsZero() {
			s.Since = sa.created
		}
		if sa.peer != nil {
			s.Peer = sa.peer.Name
		}
		if sa.suite.encr != 0 {
			s.Suite = sa.suite.String()
		}
		for _, ch := range sa.children {
			s.Children = append(s.Children, ChildStatus{ch.ChildSA, [...]string{"up", "replaced", "deleting"}[ch.state], ch.using, ch.rekeyAt})
		}
		out = append(out, s)
	}
	return out
}

// Holds counts the IKE SAs with a peer that are up, and says of which names
// there are children.
func (c *Core) Holds(peer string) (n int, children map[string]bool) {
	children = map[string]bool{}
	c.each(peer, func(sa *ikeSA) {
		if sa.state == stUp {
			n++
		}
		for _, ch := range sa.children {
			if sa.state == stUp && ch.state == chUp {
				children[ch.Name] = true
			}
		}
	})
	return n, children
}
