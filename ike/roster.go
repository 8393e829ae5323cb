package ike

import (
	"crypto"
	"net/netip"
	"slices"
	"strings"
)

// roster finds peers without a walk over all of them: a hub may have as many
// ike blocks as sites.
type roster struct {
	list    []*Peer
	names   map[string]*Peer
	at      map[netip.Addr][]int // those that call from single addresses, as places in list
	roaming []int                // all others
}

func newRoster(peers []*Peer) *roster {
	r := &roster{list: peers, names: map[string]*Peer{}, at: map[netip.Addr][]int{}}
	for i, p := range peers {
		if p.known == nil { // a peer that stays may be read by a job right now
			p.known = knownKeys(p.PublicKeys)
		}
		if r.names[p.Name] == nil {
			r.names[p.Name] = p
		}
		single := func(x netip.Prefix) bool { return x.IsSingleIP() }
		switch {
		case len(p.From) == 0 && p.Endpoint.IsValid():
			a := p.Endpoint.Addr()
			r.at[a] = append(r.at[a], i)
		case len(p.From) > 0 && !slices.ContainsFunc(p.From, func(x netip.Prefix) bool { return !single(x) }):
			for _, x := range p.From {
				if l := r.at[x.Addr()]; len(l) == 0 || l[len(l)-1] != i {
					r.at[x.Addr()] = append(l, i)
				}
			}
		default:
			r.roaming = append(r.roaming, i)
		}
	}
	return r
}

// callers are the peers that a call from remote to an address of ours may be of,
// in the order of the policy.
func (r *roster) callers(local, remote netip.Addr) (out []*Peer) {
	a, b := r.at[remote], r.roaming
	for len(a)+len(b) > 0 {
		var i int
		if len(b) == 0 || len(a) > 0 && a[0] < b[0] {
			i, a = a[0], a[1:]
		} else {
			i, b = b[0], b[1:]
		}
		if p := r.list[i]; p.takes(local, remote) {
			out = append(out, p)
		}
	}
	return out
}

// has says that a peer is in the policy.
func (r *roster) has(p *Peer) bool { return r.names[p.Name] == p }

// knownKeys is a folder of raw public keys by what identities have in common
// when they are the same.
func knownKeys(keys map[string]crypto.PublicKey) map[Identity]crypto.PublicKey {
	out := map[Identity]crypto.PublicKey{}
	for name, k := range keys {
		if id, err := ParseIdentity(name); err == nil {
			out[id.folded()] = k
		}
	}
	return out
}

// folded is equal for identities that are the same.
func (id Identity) folded() Identity {
	switch id.Type {
	case idFQDN:
		id.Data = strings.ToLower(id.Data)
	case idDN:
		if dn, err := readDN([]byte(id.Data)); err == nil {
			id.Data = dn.canonical()
		}
	}
	return id
}
