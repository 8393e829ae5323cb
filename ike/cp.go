package ike

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

// Configuration payload, RFC 7296 section 3.15.
const (
	cfgRequest = 1
	cfgReply   = 2

	cfgIP4Address = 1
	cfgIP4DNS     = 3
	cfgIP6Address = 8
	cfgIP6DNS     = 10
)

type cfgAttr struct {
	kind  uint16
	value []byte
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

// configRequest asks for what the policy wants as a caller.
func configRequest(p *Peer) []payload {
	var list []cfgAttr
	if p.RequestIPv4 {
		list = append(list, cfgAttr{kind: cfgIP4Address}, cfgAttr{kind: cfgIP4DNS})
	}
	if p.RequestIPv6 {
		list = append(list, cfgAttr{kind: cfgIP6Address}, cfgAttr{kind: cfgIP6DNS})
	}
	if list == nil {
		return nil
	}
	return []payload{cpPayload(cfgRequest, list)}
}

// takeConfig reads the gateway's answer.
func (c *Core) takeConfig(sa *ikeSA, m *opened) {
	if !sa.peer.RequestIPv4 && !sa.peer.RequestIPv6 {
		return // an address we did not ask for is not taken
	}
	p, _ := find(m.payloads, plCP)
	kind, list, err := parseCP(p.body)
	if err != nil || kind != cfgReply {
		return
	}
	var dns string
	for _, a := range list {
		v := a.value
		if a.kind == cfgIP6Address && len(v) == 17 {
			v = v[:16] // the prefix length
		}
		addr, ok := netip.AddrFromSlice(v)
		switch {
		case !ok || len(sa.assigned) >= 8:
		case a.kind == cfgIP4Address && addr.Is4() && sa.peer.RequestIPv4,
			a.kind == cfgIP6Address && addr.Is6() && sa.peer.RequestIPv6:
			sa.assigned = append(sa.assigned, addr)
		case a.kind == cfgIP4DNS, a.kind == cfgIP6DNS:
			dns += " dns " + addr.String()
		}
	}
	for _, a := range sa.assigned {
		c.event(sa, Event{Kind: Address, Detail: a.String() + dns})
	}
}

// leaseKey is who holds a lease: one identity of one peer block, with the
// addresses it holds. The zero key holds nothing.
type leaseKey struct {
	peer     string
	id       Identity
	ip4, ip6 netip.Addr
}

func (k leaseKey) addrs() (out []netip.Addr) {
	for _, a := range []netip.Addr{k.ip4, k.ip6} {
		if a.IsValid() {
			out = append(out, a)
		}
	}
	return out
}

// who is the key without addresses.
func (k leaseKey) who() leaseKey { return leaseKey{peer: k.peer, id: k.id} }

// lease is an address pair that an identity has or had. It stays its own
// until the pool runs out, so that a caller who comes back is who he was.
type lease struct {
	key    leaseKey
	holder uint64 // ID of the IKE SA; 0: free
	freed  uint64 // order in which leases became free
}

type leases struct {
	m     map[leaseKey]*lease // by who
	taken map[netip.Addr]leaseKey
	clock uint64
}

func (l *leases) release(k leaseKey, holder uint64) {
	if x := l.m[k.who()]; x != nil && x.holder == holder {
		l.clock++
		x.holder, x.freed = 0, l.clock
	}
}

func (l *leases) pass(k leaseKey, from, to uint64) {
	if x := l.m[k.who()]; x != nil && x.holder == from {
		x.holder = to
	}
}

// maxProbe bounds the search for a free address in a pool.
const maxProbe = 1 << 16

// pick finds a free address of a family in the pools. The network address and
// the first host, which is the gateway's by habit, are left out.
func (l *leases) pick(pools []netip.Prefix, is6 bool) (netip.Addr, bool) {
	for _, p := range pools {
		if p.Addr().Is6() != is6 {
			continue
		}
		last := lastOf(p)
		a := p.Masked().Addr()
		if a != last {
			a = a.Next().Next()
		}
		for range maxProbe {
			if !p.Contains(a) || !is6 && a == last && p.Bits() < 31 {
				break
			}
			if _, used := l.taken[a]; !used {
				return a, true
			}
			a = a.Next()
		}
	}
	return netip.Addr{}, false
}

// reclaim forgets the lease that has been free for longest.
func (l *leases) reclaim(peer string) bool {
	var oldest *lease
	for _, x := range l.m {
		if x.holder == 0 && x.key.peer == peer && (oldest == nil || x.freed < oldest.freed) {
			oldest = x
		}
	}
	if oldest == nil {
		return false
	}
	for _, a := range oldest.key.addrs() {
		delete(l.taken, a)
	}
	delete(l.m, oldest.key.who())
	return true
}

// give finds a lease for an identity. A second IKE SA of the same identity
// takes over the lease of the first.
func (l *leases) give(p *Peer, id Identity, holder uint64, want4, want6 bool) (leaseKey, bool) {
	k := leaseKey{peer: p.Name, id: id}
	x := l.m[k]
	if x == nil {
		x = &lease{key: k}
	}
	for _, f := range []struct {
		want bool
		is6  bool
		at   *netip.Addr
	}{{want4, false, &x.key.ip4}, {want6, true, &x.key.ip6}} {
		if !f.want || f.at.IsValid() || !slices.ContainsFunc(p.Pools, func(q netip.Prefix) bool { return q.Addr().Is6() == f.is6 }) {
			continue
		}
		a, ok := l.pick(p.Pools, f.is6)
		if !ok && l.reclaim(p.Name) {
			a, ok = l.pick(p.Pools, f.is6)
		}
		if ok {
			*f.at = a
			l.taken[a] = k
		}
	}
	if len(x.key.addrs()) == 0 {
		return leaseKey{}, false
	}
	x.holder = holder
	l.m[k] = x
	return x.key, true
}

// serveConfig answers a CFG_REQUEST as gateway.
func (c *Core) serveConfig(sa *ikeSA, m *opened) (reply []payload, ev Event) {
	p := sa.peer
	cp, asked := find(m.payloads, plCP)
	if len(p.Pools) == 0 {
		return nil, Event{} // not a gateway: the request is ignored
	}
	if !asked {
		return nil, Event{Failure: NoAddress, Detail: "the caller asked for no address, and the policy has a pool for it", Setting: "pool"}
	}
	kind, list, err := parseCP(cp.body)
	if err != nil || kind != cfgRequest {
		return nil, Event{Failure: Malformed, Detail: "configuration payload is not a request"}
	}
	wants := func(kind uint16) bool {
		return slices.ContainsFunc(list, func(a cfgAttr) bool { return a.kind == kind })
	}
	k, ok := c.leases.give(p, sa.remoteID, sa.id, wants(cfgIP4Address), wants(cfgIP6Address))
	if !ok {
		return nil, Event{Failure: NoAddress, Detail: "the pool is empty, or has no address of the family asked for", Setting: "pool"}
	}
	sa.lease = k
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
	for _, a := range k.addrs() {
		c.event(sa, Event{Kind: Address, Detail: a.String()})
	}
	return []payload{cpPayload(cfgReply, out)}, Event{}
}
