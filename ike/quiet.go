package ike

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// This file tells early that a call finds nobody. It takes a minute until a peer is
// given up, for it may be starting; a person who waits is told after seconds what is
// known by then, and at once what the kernel or the network says. None of it ends
// anything.

// quietAfter is how long a call goes without an answer until that is told. With the
// default times it has been asked three times by then.
const quietAfter = 4 * time.Second

// quietAt is when the silence of a peer is to be told; the zero time: not at all. Of
// one that is called again and again the failure of the last call has been told.
func (sa *ikeSA) quietAt() (t time.Time) {
	if hs := sa.hs; hs != nil && sa.initiator && sa.req != nil && sa.tries == 0 && !hs.told && hs.doom.Failure == NoFailure {
		t = sa.req.sent.Add(quietAfter)
	}
	return t
}

// quiet tells that a call has no answer yet.
func (c *Core) quiet(sa *ikeSA) {
	if sa.halfHeard() {
		c.silent(sa, sa.silence())
		return
	}
	c.silent(sa, "no answer yet, "+sa.silence())
}

// halfHeard says that IKE_SA_INIT was answered on one port, and nothing is on the
// other. Then it is not the peer that is away.
func (sa *ikeSA) halfHeard() bool {
	return sa.state == stHalfOpen && sa.initiator && sa.callee.Port() != sa.remote.Port() && sa.heard.Equal(sa.created)
}

// silent tells, once for each port of a call, what keeps it from being answered.
func (c *Core) silent(sa *ikeSA, why string) {
	sa.hs.told = true
	ev := Event{Kind: Silent, Detail: why}
	if len(sa.hs.want) == 1 {
		ev.Child = sa.hs.want[0].cfg.Name
	}
	c.event(sa, ev)
}

// silence says what has been asked in vain, and how often.
func (sa *ikeSA) silence() string {
	s := "asked " + times(sa.req.tries)
	switch {
	case sa.halfHeard():
		s = fmt.Sprintf("UDP %d answers, UDP %d does not: a firewall between, or the peer's own policy; %s for %s",
			sa.callee.Port(), sa.remote.Port(), s, exchangeName(sa.req.exchange))
	case sa.state == stHalfOpen:
		s = exchangeName(sa.req.exchange) + " was " + s
	}
	if sa.hs != nil && sa.hs.unreachable != "" {
		s += "; " + sa.hs.unreachable
	}
	return s
}

func times(n int) string {
	switch n {
	case 1:
		return "once"
	case 2:
		return "twice"
	}
	return fmt.Sprintf("%d times", n)
}

// Unreachable tells why what goes from an address of ours to one of a peer does not
// arrive, as the kernel or an ICMP error says. Of the latter anybody can send one:
// it is told, once for each call, and changes nothing.
func (c *Core) Unreachable(now time.Time, local, remote netip.AddrPort, why string) Output {
	c.begin(now)
	for _, p := range c.cfg.Peers {
		for _, sa := range c.index.at[spot{p, remote.Addr()}] {
			hs := sa.hs
			if hs == nil || !sa.initiator || sa.remote != remote || sa.local.Port() != local.Port() || hs.unreachable != "" {
				continue
			}
			hs.unreachable = why
			c.silent(sa, why)
			c.settle(sa)
		}
	}
	return c.end()
}

// unsentText says why the kernel does not send to a peer; empty: for a reason that
// passes.
func unsentText(err error, d *Datagram) string {
	to := d.Remote.Addr()
	switch {
	case errors.Is(err, unix.ENETUNREACH):
		return fmt.Sprintf("this host has no route to %s", to)
	case errors.Is(err, unix.EHOSTUNREACH):
		return fmt.Sprintf("this host does not reach %s: nobody has that address on the link, or a route says unreachable", to)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Sprintf("this host does not have the address %s to call %s from", d.Local.Addr(), to)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Sprintf("this host's kernel lets nothing out to %s: another firewall, or a route that says prohibit", to)
	}
	return ""
}
