package host

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/ike"
	"github.com/ipfw/ipfw/packet"
)

// IKEFailure is the last failure with a peer with which nothing has come up since, or
// what is known of one that has not answered yet (What is "silent"); without a Peer,
// the last with somebody at Remote whom no ike block is for, for ten minutes.
type IKEFailure struct {
	// Ago is how many seconds it is since.
	Ago     float64 `json:"ago_seconds"`
	Message string  `json:"message"` // as `ipfw events` has it
	IKEEvent
}

// lastFailures are the last failure of each ike block. It has as many as the policy
// has blocks, and one more for strangers.
type lastFailures struct {
	mu   sync.Mutex
	last map[string]failedAt
}

// strangerFor is how long the last failure with somebody whom no ike block is for is
// shown: nothing can come up with it that would end that.
const strangerFor = 10 * time.Minute

type failedAt struct {
	at    time.Time
	event *IKEEvent
}

// note hears the events of the key exchange.
func (l *lastFailures) note(now time.Time, e *IKEEvent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s, ok := l.last[""]; ok && e.Peer != "" && e.Remote.IsValid() && e.Remote.Addr() == s.event.Remote.Addr() {
		delete(l.last, "") // the stranger of before is known now, whatever has become of it
	}
	switch was, ok := l.last[e.Peer]; {
	case e.Failure != "", e.What == ike.Silent.String():
		if l.last == nil {
			l.last = map[string]failedAt{}
		}
		l.last[e.Peer] = failedAt{now, e}
	case ok && e.What == ike.ChildUp.String() && (was.event.Child == "" || was.event.Child == e.Child):
		delete(l.last, e.Peer)
	}
}

// list gives them in the order of names, and forgets those of blocks that the policy
// has no more.
func (l *lastFailures) list(now time.Time, b blocks) (out []IKEFailure) {
	l.mu.Lock()
	defer l.mu.Unlock()
	known := map[string]bool{"": true}
	for _, x := range b {
		if x.ike != nil {
			known[x.ike.Name] = true
		}
	}
	maps.DeleteFunc(l.last, func(name string, f failedAt) bool { return !known[name] || name == "" && now.Sub(f.at) > strangerFor })
	for _, name := range slices.Sorted(maps.Keys(l.last)) {
		f := l.last[name]
		out = append(out, IKEFailure{Ago: now.Sub(f.at).Seconds(), Message: f.event.String(), IKEEvent: *f.event})
	}
	return out
}

// whyNoSA says in words why no SA of an ipsec block can be there for a packet that
// leaves; empty: one can. Of a peer that is known by a DNS name, where it is now
// counts.
func (x *exchange) whyNoSA(b *block, p *packet.Packet) string {
	if why := b.WhyNoSA(b.ike, p.Src, p.Dst); why != "" || b.ike == nil || b.Tunnel {
		return why
	}
	if at := (*x.endpoints.Load())[b.ike.Name]; !at.has(p.Dst) {
		return fmt.Sprintf("ike %q does not speak with %s, its remote_endpoint is at %s now", b.ike.Name, p.Dst, at.call)
	}
	return ""
}

// barred is ike.Config.Barred: what in the policy in force discards what a peer sends to
// a port of the key exchange, by whichever interface it comes.
func (x *exchange) barred(local, remote netip.AddrPort) string {
	p, by := x.d.engine.Policy(), ""
	devices := []string{""}
	if p.NamesInterfaces() {
		list, err := net.Interfaces()
		if err != nil {
			return ""
		}
		devices = devices[:0]
		for _, i := range list {
			if i.Flags&net.FlagLoopback == 0 {
				devices = append(devices, i.Name)
			}
		}
	}
	for _, dev := range devices {
		in := engine.Input{Dir: engine.In, InIf: dev, Alone: true, Now: x.d.now(), Packet: packet.Packet{Version: 4, Protocol: packet.UDP,
			HasPorts: true, Src: remote.Addr(), Dst: local.Addr(), SrcPort: remote.Port(), DstPort: local.Port()}}
		if local.Addr().Is6() {
			in.Packet.Version = 6
		}
		r := x.d.engine.Ask(&in)
		if r.Verdict == engine.Bypass {
			return ""
		}
		if by != "" {
			continue
		}
		by = "discarded here by the policy block's inbound default: let a rule bypass UDP to local_port 500 and 4500"
		if rule := ruleAt(p, r.Rule); rule != nil {
			by = fmt.Sprintf("discarded here by rule %q (%s): let a rule before that bypass UDP to local_port 500 and 4500", rule.Name, rule.Place)
		}
	}
	if x.d.engine.Policy() != p {
		return "" // a reload came between, and an index means something in its policy only
	}
	return by
}

// icmpError is engine.Options.ICMPError: an ICMP error may say why a peer does not
// answer. The engine lets it in or not, as policy has it; it is no more than a hint.
func (x *exchange) icmpError(in *engine.Input) {
	s := x.server.Load()
	if s == nil {
		return
	}
	p := &in.Packet
	what := unreachableText(p)
	if what == "" {
		return
	}
	var quoted packet.Packet
	if p.Quoted(&quoted) != packet.OK || quoted.Protocol != packet.UDP || !quoted.HasPorts ||
		quoted.SrcPort != portIKE && quoted.SrcPort != portNAT || !x.icmp.allow(in.Now) {
		return
	}
	local, remote := netip.AddrPortFrom(quoted.Src, quoted.SrcPort), netip.AddrPortFrom(quoted.Dst, quoted.DstPort)
	why := fmt.Sprintf("%s says by ICMP: UDP %d of %s: %s", p.Src, remote.Port(), remote.Addr(), what)
	if strings.HasPrefix(what, "port") && p.Src == remote.Addr() {
		why += ", so no IKE daemon runs there"
	}
	s.Post(func(c *ike.Core, now time.Time) ike.Output { return c.Unreachable(now, local, remote, why) })
}

// portIKE is the port of IKE (RFC 7296 section 2).
const portIKE = 500

// unreachableText names a Destination Unreachable (RFC 792, RFC 1812 section 5.2.7.1,
// RFC 4443 section 3.1); empty: it is none, or is about the size of a packet.
func unreachableText(p *packet.Packet) string {
	switch {
	case !p.HasICMP:
	case p.Version == 4 && p.ICMPType == 3:
		switch p.ICMPCode {
		case 0:
			return "network unreachable"
		case 1:
			return "host unreachable"
		case 2:
			return "protocol unreachable"
		case 3:
			return "port unreachable"
		case 9:
			return "network prohibited"
		case 10:
			return "host prohibited"
		case 13:
			return "prohibited by a firewall"
		}
	case p.Version == 6 && p.ICMPType == 1:
		switch p.ICMPCode {
		case 0:
			return "no route"
		case 1, 5:
			return "prohibited by a firewall"
		case 3:
			return "address unreachable"
		case 4:
			return "port unreachable"
		case 6:
			return "route rejected"
		}
	}
	return ""
}
