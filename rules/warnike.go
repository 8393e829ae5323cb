package rules

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/ipfw/ipfw/engine"
)

// warnIKE warns of pre-shared keys that several peers have, of rules that protect
// what their peers are not, and when nothing lets the peers of an ike block in: essentials =
// false, and no rule in the place of ipfw's own. What it looks for is one packet
// of a peer that passes; where addresses and interfaces are open, those that the
// rules speak of are tried, so that a narrow rule is not taken for none.
func (l *loader) warnIKE() {
	p := l.policy
	l.warnSharedKey()
	l.warnUnspoken()
	if p.Settings.Essentials {
		return
	}
	eng := p.DryRun(engine.Options{})
	for i := range p.IKE {
		k := &p.IKE[i]
		if !l.uses["ike "+k.Name] {
			continue
		}
		for _, port := range []int{500, 4500} {
			by := ""
			for _, line := range l.ikeTrials(k, port) {
				o, err := runTrial(eng, line)
				if err != nil {
					continue
				}
				if o.Verdict == engine.Bypass && l.hears(o.Rule) {
					by = ""
					break
				}
				if o.Verdict == engine.Bypass {
					continue // by a rule that is for an interface, and says nothing of peers
				}
				if by == "" {
					by = "the policy block's inbound default"
					if o.Rule != nil {
						by = "rule " + quoted(*o.Rule)
					}
				}
			}
			if by != "" {
				l.caution(l.defined("ike", k.Name), "Peer cannot be heard",
					"The policy block says essentials = false, and what the peer of ike %q sends to UDP port %d would be discarded by %s: let a rule before that bypass UDP to local_port 500 and 4500.", k.Name, port, by)
				break
			}
		}
	}
}

// hears says that peers can be heard by a rule that bypasses what they send. One
// for an interface alone is no word of that: peers may come by another, and to lo
// nobody comes. It counts if it also names a port or their addresses, and if this
// host, as far as that is known, has the interface.
func (l *loader) hears(r *engine.Rule) bool {
	if r == nil || len(r.Interfaces) == 0 {
		return true
	}
	has := func(name string) bool { return name != "lo" && r.Names(name) }
	known := l.opts.Interfaces
	if len(known) == 0 {
		known = r.Interfaces
	}
	return len(r.LocalPorts)+len(r.Remote) > 0 && slices.ContainsFunc(known, has)
}

// warnUnspoken warns of rules that protect packets for which there can be no SA,
// because the peer of their ipsec block is not where they go: these are
// discarded. A rule that names no address, and takes in only, may be written to
// shut out everybody but the peer.
func (l *loader) warnUnspoken() {
	for i := range l.policy.Engine.Rules {
		r := &l.policy.Engine.Rules[i]
		s, ok := l.policy.FindIPsec(r.With)
		if r.Action != engine.Protect || !ok || s.Tunnel {
			continue
		}
		who, near, far, more := fmt.Sprintf("the SA of ipsec %q is", s.Name), s.LocalEndpoint, []engine.AddrRange(nil), ""
		if s.RemoteEndpoint.IsValid() {
			far = []engine.AddrRange{{First: s.RemoteEndpoint, Last: s.RemoteEndpoint}}
		}
		if peer, ok := l.policy.FindIKE(s.IKE); ok {
			if !near.IsValid() {
				near = peer.LocalEndpoint
			}
			if len(far) == 0 {
				who, far, more = fmt.Sprintf("ike %q speaks", peer.Name), peer.ranges(), ", or give the ike block more addresses"
			}
		}
		remote, what := r.Remote, rangesText(r.Remote)
		if len(remote) == 0 && (r.Out || r.Forward) {
			all := engine.Everywhere()
			remote, what = all[:], "any address"
		}
		if len(far) > 0 && !engine.Within(remote, far) {
			l.caution(l.places[r.Name], "Peer is not there", "Rule %q protects %s, %s with %s only: what is with others is discarded (no-sa). "+
				"Let the rule's remote_address name the peer alone%s.", r.Name, what, who, rangesText(far), more)
		}
		if near.IsValid() && !engine.Within(r.Local, []engine.AddrRange{{First: near, Last: near}}) {
			l.caution(l.places[r.Name], "Peer is not there", "Rule %q protects %s of this host, %s from %s only: what has another address is discarded (no-sa).",
				r.Name, rangesText(r.Local), who, near)
		}
	}
}

// rangesText names addresses; of many, the first few.
func rangesText(list []engine.AddrRange) string {
	return strings.Join(firstOf(list, engine.AddrRange.String), ", ")
}

// ikeTrials are trial packets of a peer to one port of ours.
func (l *loader) ikeTrials(k *IKE, port int) (lines []string) {
	const most = 16 // of each kind
	locals, remotes := k.LocalEndpoint, k.ranges()
	var mine, theirs []netip.Addr
	ifaces := []string{""}
	if locals.IsValid() {
		mine = append(mine, locals)
	}
	for i := range remotes {
		theirs = append(theirs, remotes[i].First)
	}
	for i := range l.policy.Engine.Rules {
		r := &l.policy.Engine.Rules[i]
		for _, a := range r.Local {
			if !locals.IsValid() && len(mine) < most {
				mine = append(mine, a.First)
			}
		}
		for _, a := range r.Remote {
			if len(remotes) == 0 && len(theirs) < most {
				theirs = append(theirs, a.First)
			}
		}
		for _, name := range r.Interfaces {
			if len(ifaces) < most {
				ifaces = append(ifaces, name)
			}
		}
	}
	// RFC 5737 and RFC 3849: addresses of nobody.
	if !locals.IsValid() {
		mine = append(mine, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"))
	}
	if len(remotes) == 0 {
		theirs = append(theirs, netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8:1::1"))
	}
	for _, iface := range ifaces {
		for _, a := range mine {
			for _, b := range theirs {
				if a.Is4() != b.Is4() {
					continue
				}
				line := fmt.Sprintf("in udp %s -> %s", netip.AddrPortFrom(b, uint16(port)), netip.AddrPortFrom(a, uint16(port)))
				if iface != "" {
					line += " on " + iface
				}
				lines = append(lines, line)
			}
		}
	}
	return lines
}

// warnSharedKey warns of a pre-shared key by which peers of several identities
// prove who they are: AUTH is a MAC with that key (RFC 7296 section 2.15), and
// tells nobody who has it from anybody else who has it, this side included.
func (l *loader) warnSharedKey() {
	for i := range l.policy.IKE {
		k := &l.policy.IKE[i]
		if k.PSKFile == "" || !k.manyIdentities() {
			continue
		}
		at, who := l.defined("ike", k.Name), fmt.Sprintf("remote_id = %q fits more than one identity", k.RemoteID)
		if k.RemoteID == "" {
			who = "without remote_id, any identity is taken from many addresses"
		}
		l.caution(at, "Pre-shared key of several peers",
			"In ike %q, %s: whoever has the key of psk_file can prove to be any of them, and to be this host. Give each peer an ike block with a psk_file and a remote_id of its own, or let peers prove themselves by public keys or certificates.", k.Name, who)
	}
}

// manyIdentities says whether peers of more than one identity may call. Without
// a remote_id that is so where more than one address may.
func (i *IKE) manyIdentities() bool {
	if i.RemoteID != "" {
		return strings.Contains(i.RemoteID, "*")
	}
	for _, e := range i.Remote {
		if e.Name == "" && e.Range.First != e.Range.Last {
			return true
		}
	}
	return len(i.Remote) == 0
}
