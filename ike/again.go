package ike

// maxStrays is how often one answer goes to an address where the peer is not known
// to be.
const maxStrays = 3

// answerAgain sends the last answer to a retransmission. Whoever has seen a request
// can send the same bytes again, from any address that it forges, so the answer
// goes where the peer is. A peer behind a NAT, and one with MOBIKE, may be elsewhere
// by now, and its request goes on from there (RFC 4555 section 3.5): it is answered
// there as well, some times, which is nothing for whoever is hit by a forgery.
func (c *Core) answerAgain(sa *ikeSA, d Datagram) {
	if sa.hs != nil && d.Remote == sa.remote {
		sa.hs.repeated()
	}
	if d.Remote.Addr() != sa.remote.Addr() {
		moves := sa.natPeer || sa.mobike && !sa.began
		if sa.strays++; !moves || sa.strays > maxStrays {
			c.stats.Dropped++
			return
		}
	}
	for _, m := range sa.lastReply {
		c.reply(d, m)
	}
}
