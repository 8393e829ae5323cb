package ike

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ipfw/ipfw/packet"
)

// This file is how people are told what did not fit: selectors as a policy writes
// them, what a refusal may be about, and on which side the reason is known.

// String gives addresses, and behind them protocol and ports, as people write them:
// "10.1.0.0/16", "192.0.2.1 tcp port 445", "10.0.0.1-10.0.0.9 udp ports 80-90",
// "2001:db8::1 ipv6-icmp echo-request".
func (t TrafficSelector) String() string {
	s := t.addresses()
	icmp := t.Protocol == packet.ICMP || t.Protocol == packet.ICMPv6
	if t.Protocol != 0 {
		s += " " + packet.ProtocolName(t.Protocol)
	}
	typ, code := uint8(t.FirstPort>>8), uint8(t.FirstPort)
	switch {
	case t.AnyPort():
	case t.Opaque():
		s += " without ports (OPAQUE)"
	case icmp && t.FirstPort == t.LastPort && code == 0:
		s += " " + packet.ICMPTypeName(t.Protocol, typ)
	case icmp && t.FirstPort == t.LastPort:
		s += fmt.Sprintf(" %s, code %d", packet.ICMPTypeName(t.Protocol, typ), code)
	case icmp && code == 0 && t.LastPort == t.FirstPort|0xff:
		s += fmt.Sprintf(" %s, any code", packet.ICMPTypeName(t.Protocol, typ))
	case icmp:
		s += fmt.Sprintf(" types and codes %d/%d to %d/%d", typ, code, t.LastPort>>8, t.LastPort&0xff)
	case t.FirstPort == t.LastPort:
		s += fmt.Sprintf(" port %d", t.FirstPort)
	default:
		s += fmt.Sprintf(" ports %d-%d", t.FirstPort, t.LastPort)
	}
	return s
}

// addresses gives an address, a prefix or a range, whichever says it shortest.
func (t TrafficSelector) addresses() string {
	if t.First == t.Last || !t.valid() {
		return t.First.String()
	}
	for bits := range t.First.BitLen() {
		if p, err := t.First.Prefix(bits); err == nil && p.Addr() == t.First && lastOf(p) == t.Last {
			return p.String()
		}
	}
	return t.First.String() + "-" + t.Last.String()
}

// selectorText is a list for people, who are not told of hundreds.
func selectorText(list []TrafficSelector) string {
	const most = 16
	var s []string
	for _, t := range list[:min(most, len(list))] {
		s = append(s, t.String())
	}
	if n := len(list) - most; n > 0 {
		s = append(s, fmt.Sprintf("and %d more", n))
	}
	return strings.Join(s, ", ")
}

// sidesText gives both sides of selectors, this host's first: "192.0.2.1 tcp port
// 445 <-> 192.0.2.2 tcp". A side with several stands in parentheses.
func sidesText(local, remote []TrafficSelector) string {
	side := func(list []TrafficSelector) string {
		list = Distinct(list)
		switch len(list) {
		case 0:
			return "nothing"
		case 1:
			return list[0].String()
		}
		return "(" + selectorText(list) + ")"
	}
	return side(local) + " <-> " + side(remote)
}

// allSelectors are the arguments of a rule that traffic selectors are made of.
const allSelectors = "local_address, remote_address, protocol, local_port, remote_port"

// differing names the arguments of a rule by which its selectors have nothing in
// common with others; all of them, if each for itself would do.
func differing(local, remote, theirLocal, theirRemote []TrafficSelector) string {
	meet := func(a, b []TrafficSelector, widen func(*TrafficSelector)) bool {
		return slices.ContainsFunc(a, func(x TrafficSelector) bool {
			widen(&x)
			return slices.ContainsFunc(b, func(y TrafficSelector) bool {
				widen(&y)
				_, ok := intersect(x, y)
				return ok
			})
		})
	}
	var list []string
	protocol := false
	for _, side := range []struct {
		name         string
		ours, theirs []TrafficSelector
	}{{"local", local, theirLocal}, {"remote", remote, theirRemote}} {
		switch {
		case !meet(side.ours, side.theirs, func(t *TrafficSelector) { t.Protocol, t.FirstPort, t.LastPort = 0, 0, 0xffff }):
			list = append(list, side.name+"_address")
		case !meet(side.ours, side.theirs, func(t *TrafficSelector) { t.FirstPort, t.LastPort = 0, 0xffff }):
			protocol = true
		case !meet(side.ours, side.theirs, func(*TrafficSelector) {}):
			list = append(list, side.name+"_port")
		}
	}
	if protocol {
		list = append(list, "protocol")
	}
	if len(list) == 0 {
		return allSelectors
	}
	return strings.Join(list, ", ")
}

// reasonThere says where the reason of a refusal is known.
func (sa *ikeSA) reasonThere() string {
	return "the reason is in the events of " + sa.remote.Addr().String()
}

// peerError puts an error notification of the peer into our words.
func (c *Core) peerError(sa *ikeSA, n notify) Event {
	ev := Event{Failure: RefusedByPeer, Theirs: notifyName(n.kind), Detail: sa.reasonThere()}
	switch n.kind {
	case nNoProposalChosen:
		ev.Failure, ev.Setting = NoProposal, "proposals"
	case nTSUnacceptable:
		ev.Failure, ev.Setting = NoSelectors, allSelectors
	case nAuthFailed:
		ev.Failure = WrongKeyByPeer
		if sa.peer != nil {
			c.disbelieved(sa, &ev)
		}
	case nInternalAddrFailure, nFailedCPRequired:
		ev.Failure, ev.Setting = NoAddress, "pool"
	case nUnexpectedNAT:
		ev.Failure = UnexpectedNAT
	}
	return ev
}

// disbelieved tells what may be wrong when the peer answers AUTHENTICATION_FAILED:
// who we say we are, whom we have asked for, or what we prove it by.
func (c *Core) disbelieved(sa *ikeSA, ev *Event) {
	p := sa.peer
	key := "psk_file"
	switch {
	case len(p.Certificates) > 0:
		key = "certificate"
	case p.Key != nil:
		key = "private_key"
	}
	ev.Ours, ev.Setting = "we are "+sa.localID.String(), "local_id, "+key
	if id, ok := p.asksFor(); ok && sa.began { // IDr (RFC 7296 section 1.2)
		ev.Ours += ", and have asked for " + id.String()
		ev.Setting = "remote_id, " + ev.Setting
	}
	switch hs := sa.hs; {
	case len(p.Certificates) > 0 && c.now.After(p.Certificates[0].NotAfter):
		ev.Detail, ev.Setting = "our own certificate has ended on "+p.Certificates[0].NotAfter.UTC().Format(time.DateTime)+" UTC, or the clock is wrong", "certificate"
	case len(p.Certificates) > 0 && c.now.Before(p.Certificates[0].NotBefore):
		ev.Detail, ev.Setting = "our own certificate does not begin before "+p.Certificates[0].NotBefore.UTC().Format(time.DateTime)+" UTC, or the clock is wrong", "certificate"
	case hs != nil && sa.initiator && len(hs.hashes) == 0 && p.Key != nil && kindOf(p.Key.Public()) == keyRSAPSS:
		ev.Detail, ev.Setting = rsaRefused, "private_key"
	}
}

// asksFor is the identity that a call asks for by IDr; false: any that the policy
// takes.
func (p *Peer) asksFor() (Identity, bool) {
	id, err := ParseIdentity(p.RemoteID)
	return id, err == nil && id.matches(p.RemoteID) && !hasWildcard(p.RemoteID)
}

// refusal is peerError for what we have offered: of that it says what the peer may
// have refused. o is nil for an IKE SA.
func (c *Core) refusal(sa *ikeSA, n notify, props []Proposal, o *childOffer) Event {
	ev := c.peerError(sa, n)
	switch {
	case n.kind == nNoProposalChosen || n.kind == nInvalidKEPayload:
		ev.Ours = proposalText(props)
		if o != nil && o.cfg.Mode == Tunnel && n.kind == nNoProposalChosen { // which RFC 7296 has no other answer to
			ev.Detail, ev.Setting = "or the peer wants transport mode, not a tunnel; "+ev.Detail, "proposals, mode"
		}
	case n.kind == nTSUnacceptable && o != nil:
		ev.Ours = sidesText(o.tsi, o.tsr)
	}
	return ev
}

// crlError is what a revocation list says, or that it says no more.
type crlError struct{ text string }

func (e crlError) Error() string { return e.text }
