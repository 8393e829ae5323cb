package esp

import "sync/atomic"

// Holder is who holds the other end of an SA, where the addresses do not tell:
// in transport mode through a NAT several peers have one address (RFC 3948
// section 5.2). A peer is the same Holder through all rekeys. The zero value is
// somebody who is there.
type Holder struct {
	gone atomic.Bool
	// Data is for whoever made the Holder. Opaque here; not to be changed.
	Data any
}

// Leave says that the peer has no SA any more, and will have another Holder if
// it comes back: what was its own is free for others.
func (h *Holder) Leave() { h.gone.Store(true) }

// Here says that the peer still has SAs; nil is nobody.
func (h *Holder) Here() bool { return h != nil && !h.gone.Load() }

// Holder gives what Config.Holder said.
func (sa *SA) Holder() *Holder { return sa.cfg.Holder }
