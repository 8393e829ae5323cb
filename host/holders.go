package host

import (
	"sync/atomic"

	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/ike"
	"github.com/ipfw/ipfw/packet"
)

// In transport mode the peers behind one NAT have one address, and what leaves
// for it does not say for whom (RFC 3948 section 5.2). Each is known by what it
// has proved to be; a flow remembers whose SA its packets came out of, and its
// answers leave by an SA of the same peer.
//
//	client 10.0.0.1 --+
//	                  nat 203.0.113.1 ---- this host: 203.0.113.1:40000 is whose?
//	client 10.0.0.2 --+

// who is a peer as it has proved itself.
type who struct {
	block string // the ike block
	id    string
}

// holding is what such a peer has here.
type holding struct {
	esp.Holder
	n     int                     // pairs; pairs.mu
	pairs atomic.Pointer[[]*pair] // that packets leave by, the newest first
}

// hold finds or makes the Holder of a child; nil where the peer's address tells
// who it is.
func (s *pairs) hold(c *ike.ChildSA) *esp.Holder {
	if c.Mode != ike.Transport || !c.UDPEncap {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w := who{c.Peer, c.RemoteID.String()}
	h := s.who[w]
	if h == nil {
		h = &holding{}
		h.Data = h
		h.pairs.Store(&[]*pair{})
		s.who[w] = h
	}
	h.n++
	return &h.Holder
}

// letGo takes back what hold gave for a pair; letGoLocked with s.mu held.
func (s *pairs) letGo(x *pair) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.letGoLocked(x)
}

func (s *pairs) letGoLocked(x *pair) {
	if x.holder == nil {
		return
	}
	if h := x.holder.Data.(*holding); h.n > 1 {
		h.n--
	} else {
		h.Leave()
		delete(s.who, who{x.Peer, x.RemoteID.String()})
	}
}

// held applies f to the pairs that packets for the peer leave by; pairs.mu is
// held.
func (x *pair) held(f func([]*pair) []*pair) {
	if x.holder != nil {
		h := x.holder.Data.(*holding)
		list := f(*h.pairs.Load())
		h.pairs.Store(&list)
	}
}

// outbound gives the peer's SA for a packet under an ipsec block.
func (h *holding) outbound(block string, p *packet.Packet) *esp.SA {
	for _, c := range *h.pairs.Load() {
		if c.Name == block && c.carries(p, true) && !c.out.Closed() {
			return c.out
		}
	}
	return nil
}
