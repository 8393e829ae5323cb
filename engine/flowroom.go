package engine

// A table that is full of flows which carry traffic both ways takes no new ones:
// a flood must not cut sessions. But whoever completes handshakes fills a table
// for days, with nothing behind them. So those give way who have the most: flows
// are counted by the network of their far end, and one that wants in from a network
// with few takes the place of the flow that was unused for longest of the network
// with the most. To keep everybody else out one needs many networks.
//
// The count goes through a whole shard. It makes room for many, and one that finds
// none is good for a while, so that a flood pays for few.

const (
	roomShare = 64                 // a network with no more than this part of a shard keeps what it has
	roomLeast = 8                  // and with no more than so many flows
	roomBatch = 64                 // flows that give way at once
	roomStale = int64(second / 10) // for how long a count holds that found no room
)

// network is an IPv4 /24 or an IPv6 /48: what one party easily has.
type network struct {
	bits uint64
	v6   bool
}

// far gives the network of the flow's far end. Of a flow that is forwarded it is
// the remote side of its rule, and without a rule who opened it.
func (f *flow) far() network {
	a := f.key.b
	opened := f.dir == In || f.dir == Forward && !f.outgoing // by the far end
	if opened == (f.opener == 0) {
		a = f.key.a
	}
	if f.key.path&pathIPv6 != 0 {
		return network{a.Hi >> 16, true}
	}
	return network{a.Lo >> 8, false}
}

// crowd is the last count of a shard.
type crowd struct {
	counts map[network]int // flows that are not given up otherwise
	most   network
	until  int64 // the count is not made again before
}

// makeRoom forgets flows in favour of f, which finds the shard full.
func (s *flowShard) makeRoom(f *flow, now int64) bool {
	c := &s.crowd
	if now >= c.until {
		if s.tally(now) {
			return true
		}
		c.until = now + roomStale
	}
	keeps := max(roomLeast, s.max/roomShare, 2*(c.counts[f.far()]+1))
	left := min(roomBatch, c.counts[c.most]-keeps)
	if left <= 0 {
		return false
	}
	for x := s.oldest; x != nil && left > 0; {
		next := x.newer
		if x.verdict != Protect && x.far() == c.most {
			s.remove(x)
			left--
		}
		x = next
	}
	c.until = 0 // another may have the most now
	return true
}

// tally counts, or, where there are flows that may go anyway behind those that
// evict looks at, forgets the oldest of these, and is true.
func (s *flowShard) tally(now int64) bool {
	c := &s.crowd
	c.counts, c.most = map[network]int{}, network{}
	gone := 0
	for x := s.oldest; x != nil && gone < roomBatch; {
		next := x.newer
		switch {
		case x.spare(now):
			s.remove(x)
			gone++
		case x.verdict != Protect: // who has an SA has proved who it is
			n := x.far()
			if c.counts[n]++; c.counts[n] > c.counts[c.most] {
				c.most = n
			}
		}
		x = next
	}
	return gone > 0
}

// spare says that nobody misses the flow, or that it comes back by itself.
func (f *flow) spare(now int64) bool {
	return f.expires <= now || !f.replied || f.offloaded || f.state == tcpTimeWait || f.state == tcpClosed
}
