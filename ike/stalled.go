package ike

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"
)

// This file tells of calls of peers that do not go on. Whoever begins one may be a
// stranger with a forged address, so what is told is bounded: as failures of
// strangers are, and once for each address as long as it goes on.

const (
	// stalledFor is how long an address is not told of again. Each call of it that
	// does not go on begins this time anew.
	stalledFor = 10 * time.Minute
	// maxStalled is of how many addresses that is known: about 100 bytes each.
	maxStalled = 1 << 10
)

// single is one address, where a book has prefixes.
func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// tellStalled tells that a call does not go on, unless the caller is here by another
// IKE SA.
func (c *Core) tellStalled(sa *ikeSA) {
	sa.hs.told = true
	from, told := single(sa.remote.Addr()), c.guard.stalled
	p, known := told.pages[from]
	switch {
	case known && c.now.Sub(p.at) < stalledFor:
		told.write(from, c.now)
		return
	case c.isHere(sa) || !c.guard.mayReport(c.now):
		return
	}
	told.write(from, c.now)
	c.event(sa, Event{Kind: Silent, Peer: c.onlyCaller(sa), Detail: c.stalled(sa), Stranger: true})
}

// isHere says that a peer for whom a half-open IKE SA may be has one that is up.
func (c *Core) isHere(sa *ikeSA) bool {
	a := sa.remote.Addr()
	return slices.ContainsFunc(c.peers.callers(sa.local.Addr(), a), func(p *Peer) bool {
		return slices.ContainsFunc(c.index.at[spot{p, a}], func(o *ikeSA) bool { return !o.up.IsZero() })
	})
}

// repeated counts that the last request has come again.
func (hs *handshake) repeated() {
	if hs.repeats < math.MaxUint16 {
		hs.repeats++
	}
}

// onlyCaller names the peer that a half-open IKE SA is of, if that address is one
// peer's only.
func (c *Core) onlyCaller(sa *ikeSA) string {
	if list := c.peers.callers(sa.local.Addr(), sa.remote.Addr()); len(list) == 1 {
		return list[0].Name
	}
	return ""
}

// barred says what of this host keeps it from hearing a peer; empty: nothing that is
// known.
func (c *Core) barred(local, remote netip.AddrPort) string {
	if c.cfg.Barred == nil {
		return ""
	}
	return c.cfg.Barred(local, remote)
}

// stalled says what is known of a call that does not go on. Who does not hear our
// answer asks again; once may be chance. Who has heard it goes on, behind a NAT, with
// MOBIKE or for ESP in UDP, on the port for NAT traversal (RFC 7296 section 2.23).
func (c *Core) stalled(sa *ikeSA) string {
	who, hs, last := sa.remote.Addr(), sa.hs, exchangeName(exIKESAInit)
	if len(sa.lastReply) > 0 {
		last = exchangeName(sa.lastReply[0][18])
	}
	if sa.job != nil {
		return fmt.Sprintf("the call of %s has waited for this host's own work all the time: it has too much to do", who)
	}
	if hs.repeats > 1 {
		return fmt.Sprintf("%s has asked %s for %s, and does not hear the answers by UDP %d: a firewall between, or its own policy",
			who, times(int(hs.repeats)+1), last, sa.local.Port())
	}
	if hs.keyed {
		return fmt.Sprintf("%s has begun a key exchange and does not go on after %s: a firewall between, or it has given up", who, last)
	}
	s := fmt.Sprintf("%s has begun a key exchange by UDP %d and does not go on", who, sa.local.Port())
	local, remote := sa.local, sa.remote
	why := "a firewall between keeps it from us, or our answer from it, or it has given up"
	if c.cfg.Barred == nil {
		why = "this host's own policy or " + why
	}
	if sa.peerNATT && local.Port() == c.cfg.Port {
		local, remote = netip.AddrPortFrom(local.Addr(), c.cfg.NATPort), netip.AddrPortFrom(who, natPort(remote.Port()))
		if barred := c.barred(local, remote); barred != "" {
			why = "what comes there is " + barred
		}
		next := "which may be the port of its next message"
		if sa.encap() {
			next = "the port of its next message"
		}
		return fmt.Sprintf("%s: nothing has come by UDP %d, %s; %s", s, local.Port(), next, why)
	}
	return fmt.Sprintf("%s: nothing more has come; %s", s, why)
}
