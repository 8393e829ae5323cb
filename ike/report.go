package ike

import (
	"fmt"
	"unicode/utf8"

	"github.com/ipfw/ipfw/packet"
)

// maxText bounds each text of an event, in bytes. Much of it comes from
// strangers, and events are kept and logged.
const maxText = 512

// cut gives the beginning of a text that is too long for an event.
func cut(s string) string {
	if len(s) <= maxText {
		return s
	}
	n := maxText
	for n > maxText-utf8.UTFMax && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + " ..."
}

// report puts an event out. All texts in which there may be words of a peer are
// made printable here, and Identity.String does it for identities.
func (c *Core) report(ev Event) {
	for _, s := range []*string{&ev.Ours, &ev.Theirs, &ev.Nearest, &ev.Detail} {
		*s = cut(packet.Printable(cut(*s)))
	}
	c.out.Events = append(c.out.Events, ev)
}

// event reports something about an IKE SA.
func (c *Core) event(sa *ikeSA, ev Event) {
	ev.Time, ev.IKE, ev.Local, ev.Remote, ev.RemoteID = c.now, sa.id, sa.local, sa.remote, sa.remoteID
	if sa.peer != nil {
		ev.Peer = sa.peer.Name
	}
	c.report(ev)
}

// childEvent reports something about a child, except of one that collision
// rules have made superfluous.
func (c *Core) childEvent(sa *ikeSA, ch *child, ev Event) {
	if ch.surplus {
		return
	}
	ev.Child, ev.SPIIn, ev.SPIOut = ch.Name, ch.SPIIn, ch.SPIOut
	c.event(sa, ev)
}

// fail reports a failure. Those of peers that have not authenticated are
// bounded.
func (c *Core) fail(sa *ikeSA, ev Event) {
	ev.Kind = Failed
	if sa.state == stHalfOpen && !sa.initiator {
		ev.IKE, ev.Local, ev.Remote, ev.RemoteID = sa.id, sa.local, sa.remote, sa.remoteID
		if sa.peer != nil {
			ev.Peer = sa.peer.Name
		}
		c.stranger(ev)
		return
	}
	c.stats.Failures[ev.Failure]++
	c.event(sa, ev)
}

// tell reports something that is about no IKE SA.
func (c *Core) tell(ev Event) {
	ev.Time = c.now
	c.stats.Failures[ev.Failure]++
	c.report(ev)
}

// stranger reports a failure of someone who has not authenticated.
func (c *Core) stranger(ev Event) {
	ev.Time, ev.Kind, ev.Stranger = c.now, Failed, true
	c.stats.Failures[ev.Failure]++
	if c.guard.mayReport(c.now) {
		c.report(ev)
	}
}

// String gives the event as one line, without its time.
func (e Event) String() string {
	s := e.Kind.String()
	if e.Failure != NoFailure {
		s = e.Failure.String()
	}
	add := func(name, v string) {
		if v != "" {
			s += fmt.Sprintf(" %s=%q", name, v)
		}
	}
	add("peer", e.Peer)
	add("child", e.Child)
	if e.Remote.IsValid() {
		s += " remote=" + e.Remote.String()
	}
	if !e.RemoteID.IsZero() {
		add("id", e.RemoteID.String())
	}
	if e.SPIIn != 0 {
		s += fmt.Sprintf(" spi_in=%#x spi_out=%#x", e.SPIIn, e.SPIOut)
	}
	add("suite", e.Suite)
	add("ours", e.Ours)
	add("theirs", e.Theirs)
	add("nearest", e.Nearest)
	add("detail", e.Detail)
	add("setting", e.Setting)
	return s
}
