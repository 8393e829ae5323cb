package ike

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
)

// Configuration payload, RFC 7296 section 3.15.
const (
	cfgRequest = 1
	cfgReply   = 2

	cfgIP4Address = 1
	cfgIP4DNS     = 3
	cfgIP6Address = 8
	cfgIP6DNS     = 10

	// RFC 8598 section 4. Trust anchors (26) are not asked for, and passed over:
	// no resolver takes them by a command, and they would let a gateway vouch
	// for names.
	cfgDNSDomain = 25
)

type cfgAttr struct {
	kind  uint16
	value []byte
}

// addr reads an address.
func (a cfgAttr) addr() (netip.Addr, bool) {
	v := a.value
	if a.kind == cfgIP6Address && len(v) == 17 {
		v = v[:16] // the prefix length
	}
	return netip.AddrFromSlice(v)
}

func cpPayload(kind byte, list []cfgAttr) payload {
	b := []byte{kind, 0, 0, 0}
	for _, a := range list {
		b = binary.BigEndian.AppendUint16(b, a.kind)
		b = binary.BigEndian.AppendUint16(b, uint16(len(a.value)))
		b = append(b, a.value...)
	}
	return payload{kind: plCP, body: b}
}

func parseCP(b []byte) (kind byte, list []cfgAttr, err error) {
	if len(b) < 4 {
		return 0, nil, syntaxError("CP payload of %d bytes, at least 4 needed", len(b))
	}
	kind = b[0]
	for b = b[4:]; len(b) > 0; {
		if len(b) < 4 || len(b) < 4+int(binary.BigEndian.Uint16(b[2:])) {
			return 0, nil, syntaxError("configuration attribute does not fit into %d bytes", len(b))
		}
		n := 4 + int(binary.BigEndian.Uint16(b[2:]))
		list = append(list, cfgAttr{binary.BigEndian.Uint16(b) & 0x7fff, b[4:n]})
		b = b[n:]
	}
	return kind, list, nil
}

// configRequest asks for what the policy wants as a caller. One that calls anew names
// the addresses that it has (RFC 7296 section 3.15.1).
func configRequest(sa *ikeSA) []payload {
	var list []cfgAttr
	var had [2][]byte
	if old := sa.renews; old != nil {
		for _, a := range old.assigned {
			if had[0] == nil && a.Is4() {
				had[0] = a.AsSlice()
			}
			if had[1] == nil && a.Is6() {
				had[1] = append(a.AsSlice(), 128)
			}
		}
	}
	if sa.peer.RequestIPv4 {
		list = append(list, cfgAttr{cfgIP4Address, had[0]}, cfgAttr{kind: cfgIP4DNS})
	}
	if sa.peer.RequestIPv6 {
		list = append(list, cfgAttr{cfgIP6Address, had[1]}, cfgAttr{kind: cfgIP6DNS})
	}
	if list == nil {
		return nil
	}
	return []payload{cpPayload(cfgRequest, append(list, cfgAttr{kind: cfgDNSDomain}))}
}

// unfit says why an address that a gateway lends cannot be one of ours; empty: it
// can. Who lends that of somebody else would have what is for that one.
func (c *Core) unfit(sa *ikeSA, a netip.Addr) string {
	switch {
	case a.IsUnspecified(), a.IsLoopback(), a.IsMulticast(), a.IsLinkLocalUnicast(), a.Is4In6(),
		a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "it is no address of a host"
	case a == sa.remote.Addr():
		return "it is the gateway's own"
	case slices.ContainsFunc(c.cfg.Peers, func(p *Peer) bool { return p.Endpoint.Addr() == a }):
		return "it is that of a peer of the policy"
	case c.cfg.Unfit != nil:
		return c.cfg.Unfit(a, sa.remote.Addr())
	}
	return ""
}

// takeConfig reads the gateway's answer. What it lends may have to be refused.
func (c *Core) takeConfig(sa *ikeSA, m *opened) (fail Event) {
	if !sa.peer.RequestIPv4 && !sa.peer.RequestIPv6 {
		return fail // an address we did not ask for is not taken
	}
	p, _ := find(m.payloads, plCP)
	kind, list, err := parseCP(p.body)
	if err != nil || kind != cfgReply {
		return fail
	}
	for _, a := range list {
		if a.kind == cfgDNSDomain {
			if d, ok := domainOf(a.value); ok && !slices.Contains(sa.domains, d) && len(sa.domains) < maxDomains {
				sa.domains = append(sa.domains, d)
			}
			continue
		}
		addr, ok := a.addr()
		switch {
		case !ok:
		case (a.kind == cfgIP4Address && addr.Is4() && sa.peer.RequestIPv4 ||
			a.kind == cfgIP6Address && addr.Is6() && sa.peer.RequestIPv6) && len(sa.assigned) < 8:
			if why := c.unfit(sa, addr); why != "" {
				return Event{Failure: NoAddress, Theirs: addr.String(), Setting: "request_address",
					Detail: "the gateway lends this host " + addr.String() + ", which cannot be taken: " + why}
			}
			sa.assigned = append(sa.assigned, addr)
		case (a.kind == cfgIP4DNS && addr.Is4() || a.kind == cfgIP6DNS && addr.Is6()) && !addr.IsUnspecified() && len(sa.dns) < 8:
			sa.dns = append(sa.dns, addr)
		}
	}
	dns := ""
	for _, a := range sa.dns {
		dns += " dns " + a.String()
	}
	if len(sa.dns) == 0 { // they say nothing without a server (RFC 8598 section 3.2)
		sa.domains = nil
	}
	for _, d := range sa.domains {
		dns += " domain " + d
	}
	for _, a := range sa.assigned {
		c.event(sa, Event{Kind: Address, Detail: a.String() + dns})
	}
	return fail
}

// serveConfig answers a CFG_REQUEST as gateway.
func (c *Core) serveConfig(sa *ikeSA, m *opened) (reply []payload, ev Event) {
	p := sa.peer
	cp, asked := find(m.payloads, plCP)
	if len(p.Pools) == 0 || !asked {
		return nil, Event{} // not a gateway, or none for this caller, who gets no tunnel: see remoteTS
	}
	kind, list, err := parseCP(cp.body)
	if err != nil || kind != cfgRequest {
		return nil, Event{Failure: Malformed, Detail: "configuration payload is not a request"}
	}
	wants := func(kind uint16) bool {
		return slices.ContainsFunc(list, func(a cfgAttr) bool { return a.kind == kind })
	}
	ask := loan{peer: p, id: sa.remoteID, holder: sa.id, want4: wants(cfgIP4Address), want6: wants(cfgIP6Address)}
	for _, a := range list {
		if addr, ok := a.addr(); ok && (a.kind == cfgIP4Address || a.kind == cfgIP6Address) {
			ask.named = append(ask.named, addr)
		}
	}
	old := c.sameDevice(sa)
	if old != nil {
		ask.from = old.id
	}
	k, ok := c.leases.give(ask)
	if !ok {
		return nil, Event{Failure: NoAddress, Detail: "the pool is empty, or has no address of the family asked for", Setting: "pool"}
	}
	sa.lease = k
	if old != nil {
		c.takenOver(old)
	}
	var out []cfgAttr
	if k.ip4.IsValid() && wants(cfgIP4Address) {
		out = append(out, cfgAttr{cfgIP4Address, k.ip4.AsSlice()})
	}
	if k.ip6.IsValid() && wants(cfgIP6Address) {
		out = append(out, cfgAttr{cfgIP6Address, append(k.ip6.AsSlice(), 128)})
	}
	for _, d := range p.DNS {
		kind := uint16(cfgIP4DNS)
		if d.Is6() {
			kind = cfgIP6DNS
		}
		out = append(out, cfgAttr{kind, d.AsSlice()})
	}
	if len(p.DNS) > 0 && wants(cfgDNSDomain) {
		for _, d := range p.Domains {
			out = append(out, cfgAttr{cfgDNSDomain, []byte(d)})
		}
	}
	for _, a := range k.addrs() {
		c.event(sa, Event{Kind: Address, Detail: a.String()})
	}
	return []payload{cpPayload(cfgReply, out)}, Event{}
}

// maxDomains is how many domains are taken of a gateway.
const maxDomains = 32

// domainOf reads a domain (RFC 8598 section 4.1), strictly: it ends up on a command
// line. What is not letters, digits, hyphens and underscores between dots is none.
func domainOf(b []byte) (string, bool) {
	s := strings.ToLower(strings.TrimSuffix(string(b), "."))
	if len(s) == 0 || len(s) > 253 {
		return "", false
	}
	for label := range strings.SplitSeq(s, ".") {
		odd := func(r rune) bool { return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_') }
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' || strings.ContainsFunc(label, odd) {
			return "", false
		}
	}
	return s, true
}
