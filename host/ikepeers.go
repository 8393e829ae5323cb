package host

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/ike"
	"github.com/ipfw/ipfw/packet"
	"github.com/ipfw/ipfw/rules"
)

// ikePeer is an ike block and what the key exchange makes of it.
type ikePeer struct {
	*ike.Peer            // never handed out: see names.place
	block     *rules.IKE // where it came from
}

// peersOf makes the peer authorisation database (RFC 4301 section 4.4.3) of a
// policy: who may hold which child, and with which selectors, is what the ike
// blocks and the rules say. Where the peers are is left open.
func peersOf(p *rules.Policy) ([]ikePeer, error) {
	var out []ikePeer
	for i := range p.IKE {
		k := &p.IKE[i]
		x, err := termsOf(p, k)
		if err == nil && x != nil {
			if err = readProof(k, x); err == nil {
				err = errors.Join(x.Faults()...)
			}
		}
		var m *misfit
		switch {
		case errors.As(err, &m):
			return nil, err
		case err != nil:
			return nil, &misfit{"ike", k.Name, "", cmp.Or(k.Places[faulty(err)], k.Place), err}
		case x != nil:
			out = append(out, ikePeer{x, k})
		}
	}
	return out, nil
}

// termsOf makes a peer of an ike block, but for its keys; nil if nothing uses it.
func termsOf(p *rules.Policy, k *rules.IKE) (*ike.Peer, error) {
	x := &ike.Peer{
		Name: k.Name, Local: k.LocalEndpoint, RemoteID: k.RemoteID,
		PPKID: k.PPKID, PPKRequired: k.PPKRequired, EAP: k.EAP,
		Lifetime: k.Lifetime, DPD: k.DeadPeerDetection, Pools: k.Pool, DNS: k.DNS, Domains: k.DNSDomains,
		RequestIPv4: k.RequestAddress, RequestIPv6: k.RequestAddress, MaxSAs: k.MaxSAsPerIdentity,
	}
	x.Retransmit = ike.Retransmit{First: k.RetransmitTimeout, Factor: k.RetransmitBase}
	if k.RetransmitTries > 0 {
		x.Retransmit.Tries = k.RetransmitTries + 1 // the request itself counts
	}
	if !k.MOBIKE {
		x.MOBIKE = ike.Off
	}
	switch k.FullTranscript {
	case rules.TranscriptRequire:
		x.FullTranscript = ike.TranscriptRequired
	case rules.TranscriptNever:
		x.FullTranscript = ike.TranscriptNever
	}
	for i := range p.IPsec {
		if s := &p.IPsec[i]; s.IKE == k.Name {
			ch, err := childOf(p, s, k)
			if err != nil {
				return nil, &misfit{"ipsec", s.Name, "", s.Place, err}
			}
			if ch != nil {
				x.Children = append(x.Children, ch)
				x.ForceEncap = x.ForceEncap || s.Encap == rules.EncapUDP
				x.PreferEncap = (x.PreferEncap || len(x.Children) == 1) && s.Encap != rules.EncapNone && !s.AH
			}
		}
	}
	if len(x.Children) == 0 {
		return nil, nil
	}
	var err error
	if k.LocalID != "" {
		if x.LocalID, err = ike.ParseIdentity(k.LocalID); err != nil {
			return nil, &misfit{"ike", k.Name, "local_id", k.Places["local_id"], err}
		}
	}
	x.Proposals, err = ikeProposals(k)
	return x, err
}

// endpointsOf says whom to call, and who may call. One address, or one name, is
// both; of several the first that is one address is called.
func endpointsOf(k *rules.IKE, lookup func(string) netip.Addr) (call netip.AddrPort, from []netip.Prefix) {
	for _, e := range k.Remote {
		a := e.Range.First
		if e.Name != "" {
			if a = lookup(e.Name); a.IsValid() {
				from = append(from, netip.PrefixFrom(a, a.BitLen()))
			}
		} else {
			from = append(from, prefixesOf(e.Range)...)
		}
		if !call.IsValid() && a.IsValid() && (e.Name != "" || a == e.Range.Last) {
			call = netip.AddrPortFrom(a, 0)
		}
	}
	if len(k.Remote) == 1 && call.IsValid() {
		from = nil // what is called is what may call, also when its name moves
	}
	if len(k.Remote) > 0 && len(from) == 0 && !call.IsValid() { // a name without an address: nobody
		from = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 32)}
	}
	return call, from
}

// prefixesOf cuts a range of addresses into prefixes.
func prefixesOf(r engine.AddrRange) (out []netip.Prefix) {
	for a := r.First; a.IsValid() && a.Compare(r.Last) <= 0; {
		bits := a.BitLen()
		for bits > 0 {
			p := netip.PrefixFrom(a, bits-1)
			if p.Masked().Addr() != a || ike.SelectorOf(p).Last.Compare(r.Last) > 0 {
				break
			}
			bits--
		}
		p := netip.PrefixFrom(a, bits)
		out = append(out, p)
		a = ike.SelectorOf(p).Last.Next()
	}
	return out
}

// childOf makes the child of an ipsec block; nil if no rule uses it.
func childOf(p *rules.Policy, s *rules.IPsec, k *rules.IKE) (*ike.Child, error) {
	ch := &ike.Child{
		Name: s.Name, Endpoint: s.RemoteEndpoint, Local: s.LocalEndpoint, Lifetime: s.Lifetime,
		Bytes: s.LifetimeBytes, Packets: s.LifetimePackets, Start: k.Initiate == rules.InitiateStart,
	}
	if s.Tunnel {
		ch.Mode = ike.Tunnel
	} else {
		ch.Mode = ike.Transport
	}
	ch.Protocol = ike.ProtoESP
	if s.AH {
		ch.Protocol = ike.ProtoAH
	}
	used := false
	for i := range p.Engine.Rules {
		r := &p.Engine.Rules[i]
		if r.Action == engine.Protect && r.With == s.Name {
			used = true
			if n := max(len(ch.LocalTS)+combinations(r.Protocols, r.Local, r.LocalPorts), len(ch.RemoteTS)+combinations(r.Protocols, r.Remote, r.RemotePorts)); n > maxCombinations {
				return nil, tooManySelectors(n)
			}
			ch.LocalTS = appendSelectors(ch.LocalTS, r.Protocols, r.Local, r.LocalPorts)
			ch.RemoteTS = appendSelectors(ch.RemoteTS, r.Protocols, r.Remote, r.RemotePorts)
		}
	}
	if !used {
		return nil, nil
	}
	ch.LocalTS, ch.RemoteTS = fewer(ch.LocalTS), fewer(ch.RemoteTS)
	if n := max(len(ch.LocalTS), len(ch.RemoteTS)); n > ike.MaxSelectors {
		return nil, tooManySelectors(n)
	}
	var err error
	ch.Proposals, err = childProposals(s)
	return ch, err
}

// tooManySelectors says that the rules of an ipsec block name n of them.
func tooManySelectors(n int) error {
	return fmt.Errorf("its rules name %d ranges of addresses, and IKE peers take %d at most: name larger ones, or use more ipsec blocks", n, ike.MaxSelectors)
}

// maxCombinations is how many selectors are compared with each other to find those
// that others contain.
const maxCombinations = 1 << 14

// combinations is how many selectors one side of a rule makes.
func combinations(protocols []uint8, addrs []engine.AddrRange, ports []engine.PortRange) int {
	return max(len(protocols), 1) * max(len(addrs), len(engine.Everywhere())) * max(len(ports), 1)
}

// appendSelectors adds one side of a rule. Of ICMP all types are asked for: the
// answers have others than the questions.
func appendSelectors(list []ike.TrafficSelector, protocols []uint8, addrs []engine.AddrRange, ports []engine.PortRange) []ike.TrafficSelector {
	if len(protocols) == 0 {
		protocols = []uint8{0}
	}
	if len(addrs) == 0 {
		all := engine.Everywhere()
		addrs = all[:]
	}
	for _, proto := range protocols {
		ports := ports
		if len(ports) == 0 || proto == packet.ICMP || proto == packet.ICMPv6 {
			ports = []engine.PortRange{{First: 0, Last: 65535}}
		}
		for _, a := range addrs {
			if proto == packet.ICMP && a.First.Is6() || proto == packet.ICMPv6 && a.First.Is4() {
				continue
			}
			for _, r := range ports {
				list = append(list, ike.TrafficSelector{First: a.First, Last: a.Last, Protocol: proto, FirstPort: r.First, LastPort: r.Last})
			}
		}
	}
	return list
}

// fewer leaves out selectors that others contain. Where there are more than a
// message holds, it asks for all ports, and then for all protocols: the rules
// are asked about every packet in any case.
func fewer(list []ike.TrafficSelector) []ike.TrafficSelector {
	for _, widen := range []func(*ike.TrafficSelector){
		func(*ike.TrafficSelector) {},
		func(t *ike.TrafficSelector) { t.FirstPort, t.LastPort = 0, 65535 },
		func(t *ike.TrafficSelector) { t.Protocol = 0 },
	} {
		for i := range list {
			widen(&list[i])
		}
		list = ike.Distinct(list)
		if len(list) <= ike.MaxSelectors {
			break
		}
	}
	return list
}

// The algorithms that are proposed for what a policy leaves open; those of
// ike's own defaults.
var (
	defaultPRFs   = []string{"prf-hmac-sha2-256", "prf-hmac-sha2-384", "prf-hmac-sha2-512"}
	defaultGroups = []string{"x25519+ml-kem-768", "p-256+ml-kem-768", "p-384+ml-kem-768", "x25519", "p-256", "p-384"}
)

// ikeProposals is what an ike block proposes; nil: ike's defaults.
func ikeProposals(k *rules.IKE) ([]ike.Proposal, error) {
	if len(k.Encryption)+len(k.Integrity)+len(k.PRF)+len(k.KeyExchange) == 0 {
		return nil, nil
	}
	return proposals(ike.ProtoIKE, k.Encryption, k.Integrity, k.PRF, or(k.KeyExchange, defaultGroups), nil)
}

// childProposals is what an ipsec block proposes; nil: ike's defaults.
func childProposals(s *rules.IPsec) ([]ike.Proposal, error) {
	if len(s.Encryption)+len(s.Integrity)+len(s.KeyExchange) == 0 && s.ESN {
		return nil, nil
	}
	esn := []string{"no-esn"}
	if s.ESN {
		esn = []string{"esn", "no-esn"}
	}
	proto := uint8(ike.ProtoESP)
	if s.AH {
		proto = ike.ProtoAH
	}
	// Keys from those of the IKE SA first; a peer that wants an exchange of its
	// own for each child gets it. Who names exchanges gets nothing less.
	groups := append([]string{"none"}, slices.DeleteFunc(slices.Clone(defaultGroups), func(g string) bool { return strings.Contains(g, "+") })...)
	return proposals(proto, s.Encryption, s.Integrity, nil, or(s.KeyExchange, groups), esn)
}

func or(list, def []string) []string {
	if len(list) == 0 {
		return def
	}
	return list
}

// proposals sorts algorithms into proposals: combined ciphers, which bring
// their own integrity, cannot share one with others (RFC 7296 section 3.3), nor
// key exchanges with a second one on top with such without.
func proposals(proto uint8, encryption, integrity, prf, groups, esn []string) ([]ike.Proposal, error) {
	var bad error
	transform := func(kind uint8, name string) ike.Transform {
		t, ok := ike.TransformNamed(kind, name)
		if !ok && bad == nil {
			bad = fmt.Errorf("ipfw's key exchange cannot agree on %s yet: name another algorithm", name)
		}
		return t
	}
	named := func(kind uint8, names []string) (out []ike.Transform) {
		for _, n := range names {
			out = append(out, transform(kind, n))
		}
		return out
	}
	var common []ike.Transform
	if proto == ike.ProtoIKE {
		common = named(ike.TransformPRF, or(prf, defaultPRFs))
	}
	macs := named(ike.TransformINTEG, or(integrity, rules.DefaultIntegrity()))

	var ciphers [2][]ike.Transform // combined ones, others
	for _, t := range named(ike.TransformENCR, or(encryption, rules.DefaultEncryption())) {
		if ike.Combined(t.ID) {
			ciphers[0] = append(ciphers[0], t)
		} else {
			ciphers[1] = append(ciphers[1], t)
		}
	}
	if proto == ike.ProtoAH {
		ciphers = [2][]ike.Transform{}
	}

	var plain, hybrid []ike.Transform
	for _, g := range groups {
		if first, _, ok := strings.Cut(g, "+ml-kem-768"); ok {
			hybrid = append(hybrid, transform(ike.TransformKE, first))
		} else {
			plain = append(plain, transform(ike.TransformKE, g))
		}
	}
	kem := []ike.Transform{transform(ike.TransformADDKE, "ml-kem-768")}
	var out []ike.Proposal
	add := func(ke, extra []ike.Transform) {
		if len(ke) == 0 {
			return
		}
		for i, c := range ciphers {
			list := slices.Concat(c, common)
			if proto == ike.ProtoAH {
				if i == 0 {
					continue
				}
				list = macs
			} else if len(c) == 0 {
				continue
			} else if i == 1 {
				list = append(list, macs...)
			}
			list = slices.Concat(list, ke, named(ike.TransformESN, esn), extra)
			out = append(out, ike.Proposal{Protocol: proto, Transforms: list})
		}
	}
	add(hybrid, kem)
	add(plain, nil)
	return out, bad
}
