package ike

import "fmt"

// defaultMaxSAs is how many IKE SAs one identity may have: its own, and those of
// before that it has left without a word, of which we do not know yet.
const defaultMaxSAs = 8

// keepFew keeps one identity from taking the places of all others. Of more IKE
// SAs than it may have, the one goes that has been silent for longest; the peer
// is told once, for whoever fills places need not answer. What is on its way out
// counts as well, twice as many in all, for a peer that rekeys may leave it to us.
// old is what fresh is the rekey of, or nil: that is no other IKE SA more.
func (c *Core) keepFew(fresh, old *ikeSA) {
	most := or(fresh.peer.MaxSAs, defaultMaxSAs)
	var oldest, leaving *ikeSA // of those that are up; of the others
	up, all := 0, c.held[fresh.holder()]
	for _, o := range all {
		if o.state == stUp {
			up++
		}
		switch {
		case o == fresh, o == old:
		case o.state != stUp:
			if leaving == nil || o.id < leaving.id {
				leaving = o
			}
		case oldest == nil, o.heard.Before(oldest.heard):
			oldest = o
		}
	}
	switch {
	case up > most && old == nil && oldest != nil:
		oldest.surplus = true
		c.event(oldest, Event{Kind: IKEDown, Setting: "max_sas_per_identity",
			Detail: fmt.Sprintf("its identity has more than %d IKE SAs, and of them this one has been silent for longest (max_sas_per_identity)", most)})
		c.partQuietly(oldest)
	case len(all) > 2*most && leaving != nil:
		leaving.surplus = true
		c.partQuietly(leaving)
	}
}

// partQuietly ends an IKE SA with one Delete that nobody has to answer.
func (c *Core) partQuietly(sa *ikeSA) {
	c.sayDelete(sa, deletePayload(ProtoIKE))
	c.destroy(sa, true)
}
