package host

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/nfq"
	"github.com/ipfw/ipfw/packet"
)

// FlowChange is a flow of which the new policy says something else than the one
// before.
type FlowChange struct {
	Direction   string         `json:"direction"`
	Protocol    Protocol       `json:"protocol"`
	Source      netip.AddrPort `json:"source"` // who opened it; ports as in Flow
	Destination netip.AddrPort `json:"destination"`
	// Verdict is what the new policy says: discard cuts it, with protect it
	// goes on under an SA alone, with bypass in the clear.
	Verdict string `json:"verdict"`
	Rule    string `json:"rule,omitempty"` // of the new policy; empty: the default
	Place   string `json:"place,omitempty"`
}

// String gives the flow in one line, and what decides of it.
func (f FlowChange) String() string {
	by := "by " + engine.DefaultNameOf(f.Direction)
	if f.Rule != "" {
		by = fmt.Sprintf("by rule %q", f.Rule)
		if f.Place != "" {
			by += " (" + f.Place + ")"
		}
	}
	ports := f.Source.Port() != 0 || f.Destination.Port() != 0
	return fmt.Sprintf("%s %s %s -> %s, %s", f.Direction, f.Protocol,
		endpoint(f.Source.Addr(), f.Source.Port(), ports), endpoint(f.Destination.Addr(), f.Destination.Port(), ports), by)
}

// FlowChanges are the flows of which a new policy says something else.
type FlowChanges struct {
	Cut     int `json:"cut"`    // by the new policy
	Sealed  int `json:"sealed"` // were in the clear, and go on under an SA alone
	Cleared int `json:"clear"`  // were sealed, and go on in the clear
	// List has the first maxFlowChanges of them, those that are cut first.
	List []FlowChange `json:"list"`
}

// maxFlowChanges bounds what a reload tells of flows one by one.
const maxFlowChanges = 100

// String counts them.
func (c *FlowChanges) String() string {
	var parts []string
	for _, k := range []struct {
		n         int
		one, many string
	}{
		{c.Cut, "flow is cut", "flows are cut"},
		{c.Sealed, "flow goes on under its SA alone", "flows go on under their SAs alone"},
		{c.Cleared, "flow goes on in the clear", "flows go on in the clear"},
	} {
		if k.n > 0 {
			parts = append(parts, verbs(k.n, k.one, k.many))
		}
	}
	if parts == nil {
		return "no flow is cut"
	}
	return strings.Join(parts, ", ")
}

// flowChanges says what a policy that is not in force yet does to live flows.
func (d *daemon) flowChanges(ready *engine.Prepared) FlowChanges {
	c := FlowChanges{List: []FlowChange{}}
	var others []FlowChange
	d.engine.Changes(ready, d.now(), func(x *engine.Change) bool {
		f := FlowChange{Direction: x.Flow.Dir.String(), Protocol: Protocol(x.Flow.Protocol), Source: x.Flow.Source,
			Destination: x.Flow.Dest, Verdict: x.Now.Verdict.String()}
		if r := ruleAt(ready.Policy(), x.Now.Rule); r != nil {
			f.Rule, f.Place = r.Name, r.Place
		}
		list := &others
		switch x.Now.Verdict {
		case engine.Protect:
			c.Sealed++
		case engine.Bypass:
			c.Cleared++
		default:
			c.Cut++
			list = &c.List
		}
		if len(*list) < maxFlowChanges {
			*list = append(*list, f)
		}
		return true
	})
	c.List = append(c.List, others[:min(len(others), maxFlowChanges-len(c.List))]...)
	return c
}

// asker asks a policy about a flow that a packet opens.
type asker interface {
	Ask(*engine.Input) engine.Result
}

// sessions judges the connections over which somebody sits at this host by a policy
// that is not in force yet.
type sessions struct {
	next   asker
	policy *engine.Policy // of next
	now    asker          // the policy in force; nil: there is none
	// flow gives what both say of the live flow that a packet belongs to; nil:
	// nothing is known of flows.
	flow    func(in *engine.Input) (was, next engine.Result, ok bool)
	devices *devices
}

// cut says which of the connections the policy would cut, and what decides.
func (s *sessions) cut(own []nfq.Connection) (cut []string) {
	for _, c := range own {
		if s.devices.loopback(c) {
			continue
		}
		if c.Opener == engine.OpenedByEither {
			c.Opener = engine.OpenedByRemote // to be on the safe side
		}
		in, r, ok := s.judge(c)
		if !ok {
			continue
		}
		f := FlowChange{Direction: in.Dir.String(), Protocol: Protocol(in.Packet.Protocol), Verdict: r.Verdict.String(),
			Source: netip.AddrPortFrom(in.Packet.Src, in.Packet.SrcPort), Destination: netip.AddrPortFrom(in.Packet.Dst, in.Packet.DstPort)}
		if rule := ruleAt(s.policy, r.Rule); rule != nil {
			f.Rule, f.Place = rule.Name, rule.Place
		}
		text := f.String()
		if r.Verdict == engine.Protect {
			text += ", which wants it sealed"
		}
		cut = append(cut, text)
	}
	return cut
}

// cutsOwn says which of the connections a reload would cut.
func (d *daemon) cutsOwn(own []nfq.Connection, next *engine.Prepared) []string {
	found := findDevices()
	defer found.close()
	s := &sessions{next: next, policy: next.Policy(), now: d.engine, devices: found,
		flow: func(in *engine.Input) (was, now engine.Result, ok bool) {
			in.Now = d.now()
			return d.engine.AskFlow(next, in)
		}}
	return s.cut(own)
}

// judge says whether a connection would be cut, and what decides. By which interface
// it has come its flow knows. Where there is none, each by which it may have come is
// asked about.
func (s *sessions) judge(c nfq.Connection) (in engine.Input, r engine.Result, cut bool) {
	// What goes on sealed does so, and what the policy in force does not let through
	// the next one does not cut.
	cuts := func(was, now engine.Verdict) bool {
		return now != engine.Bypass && was != engine.Discard && was != now
	}
	if in = opening(c, ""); s.flow != nil {
		if was, r, ok := s.flow(&in); ok {
			return in, r, cuts(was.Verdict, r.Verdict)
		}
	}
	for _, device := range s.devices.of(c) {
		in = opening(c, device)
		r = s.next.Ask(&in)
		was := engine.Bypass
		if s.now != nil {
			was = s.now.Ask(&in).Verdict
		}
		if cuts(was, r.Verdict) {
			return in, r, true
		}
	}
	return in, r, false
}

// opening is the packet that has opened a connection, by an interface.
func opening(c nfq.Connection, device string) engine.Input {
	in := engine.Input{Dir: engine.Out, OutIf: device}
	src, dst := c.Local, c.Remote
	if c.Opener == engine.OpenedByRemote {
		in.Dir, in.InIf, in.OutIf = engine.In, in.OutIf, ""
		src, dst = dst, src
	}
	in.Packet = packet.Packet{Version: 4, Protocol: packet.TCP, HasPorts: true,
		Src: src.Addr(), Dst: dst.Addr(), SrcPort: src.Port(), DstPort: dst.Port()}
	if c.UDP {
		in.Packet.Protocol = packet.UDP
	}
	if src.Addr().Is6() {
		in.Packet.Version = 6
	}
	return in
}

// endsText gives source and destination of a packet that has ports.
func endsText(in *engine.Input) string {
	p := &in.Packet
	return endpoint(p.Src, p.SrcPort, true) + " -> " + endpoint(p.Dst, p.DstPort, true)
}

// wouldCut refuses what would cut the session of whoever asks for it.
func wouldCut(cut []string, what, wayOut string) error {
	if len(cut) == 0 {
		return nil
	}
	s := "session"
	if len(cut) > 1 {
		s = "sessions"
	}
	return &APIError{Status: http.StatusConflict,
		Message: fmt.Sprintf("%s would cut your own %s (%s), so nothing was changed: %s", what, s, strings.Join(cut, "; "), wayOut)}
}

// refuseToCut says no to the start of a policy that would cut the session of whoever
// starts it.
func refuseToCut(first *loaded, k *look, ssh string) error {
	own := k.ownSessions(os.Getpid(), ssh)
	if len(own) == 0 {
		return nil
	}
	found := findDevices()
	defer found.close()
	next := &sessions{next: engine.New(&first.Engine, engine.Options{MaxFlows: 1}), policy: &first.Engine, devices: found}
	cut := next.cut(own)
	return wouldCut(cut, "the policy", "start it with --confirm 60s, which takes it back unless you say `ipfw confirm` from a new session, or with --force")
}

// ownSessions gives the connections over which whoever runs a process sits at this
// host; see finder.of. ssh is what FindSSH gives, and adds one that is not among
// them, as in a terminal multiplexer. Where nothing tells whom a UDP socket speaks
// with, it is taken to be whoever has come by ssh: that is how mosh begins.
func (k *look) ownSessions(pid int, ssh string) []nfq.Connection {
	f := finder{proc: proc, datagrams: k.datagrams}
	err := errors.New("nobody to ask")
	if k.connections != nil {
		f.list, err = k.connections()
	}
	own := f.of(pid)
	c, ok := sshConnection(ssh)
	own = slices.DeleteFunc(own, func(x nfq.Connection) bool { return !x.Remote.IsValid() && !ok })
	for i := range own {
		if x := &own[i]; !x.Remote.IsValid() {
			x.Remote = netip.AddrPortFrom(c.Remote.Addr(), engine.AnyPort)
			if x.Local.Addr().IsUnspecified() {
				x.Local = netip.AddrPortFrom(c.Local.Addr(), x.Local.Port())
			}
		}
	}
	switch {
	case !ok:
	case err != nil: // all that is known
		own = append(own, c)
	default:
		for _, x := range f.list { // one that is gone cannot be cut
			if x.Local == c.Local && x.Remote == c.Remote && !has(own, x) {
				own = append(own, x)
			}
		}
	}
	return own
}

func has(list []nfq.Connection, c nfq.Connection) bool {
	for _, x := range list {
		if x.Local == c.Local && x.Remote == c.Remote && x.UDP == c.UDP {
			return true
		}
	}
	return false
}

// sshConnection reads $SSH_CONNECTION: "client port server port".
func sshConnection(ssh string) (c nfq.Connection, ok bool) {
	f := strings.Fields(ssh)
	if len(f) != 4 {
		return c, false
	}
	client, err := netip.ParseAddrPort(net.JoinHostPort(f[0], f[1]))
	server, err2 := netip.ParseAddrPort(net.JoinHostPort(f[2], f[3]))
	bare := func(a netip.AddrPort) netip.AddrPort {
		return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
	}
	return nfq.Connection{Local: bare(server), Remote: bare(client), Opener: engine.OpenedByRemote}, err == nil && err2 == nil
}
