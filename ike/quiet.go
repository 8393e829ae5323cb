package ike

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// This file tells early that a call finds nobody, and that one of a peer does not go
// on. It takes a minute until a peer is given up, for it may be starting; a person
// who waits is told after seconds what is known by then, and at once what the kernel
// or the network says. None of it ends anything.

// quietAfter is how long a call goes without an answer, or a peer's without its next
// message, until that is told. With the default times somebody has asked three times
// by then.
const quietAfter = 4 * time.Second

// quietAt is when the silence of a peer is to be told; the zero time: not at all. Of
// one that is called again and again the failure of the last call has been told.
func (sa *ikeSA) quietAt() (t time.Time) {
	hs := sa.hs
	switch {
	case hs == nil || hs.told:
	case !sa.initiator:
		if sa.job == nil && hs.eap == nil { // somebody may be typing a PIN
			t = sa.heard.Add(quietAfter)
		}
	case sa.req != nil && sa.tries == 0 && hs.doom.Failure == NoFailure:
		t = sa.req.sent.Add(quietAfter)
	}
	return t
}

// quiet tells that a call has no answer yet, or that one of a peer does not go on.
func (c *Core) quiet(sa *ikeSA) {
	switch {
	case !sa.initiator:
		c.tellStalled(sa)
	case sa.halfHeard():
		c.silent(sa, c.silence(sa))
	default:
		c.silent(sa, "no answer yet, "+c.silence(sa))
	}
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
func (c *Core) silence(sa *ikeSA) string {
	s, barred := "asked "+times(sa.req.tries), c.barred(sa.local, sa.remote)
	switch {
	case sa.halfHeard():
		why := "a firewall between, or the peer's own policy"
		if barred != "" {
			why = "what comes from there is " + barred
		}
		s = fmt.Sprintf("UDP %d answers, UDP %d does not: %s; %s for %s",
			sa.callee.Port(), sa.remote.Port(), why, s, exchangeName(sa.req.exchange))
		barred = ""
	case sa.state == stHalfOpen:
		s = exchangeName(sa.req.exchange) + " was " + s
	}
	if barred != "" {
		s += "; what comes from there is " + barred
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
