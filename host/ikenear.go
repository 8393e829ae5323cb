package host

import (
	"cmp"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strings"

	"github.com/ipfw/ipfw/ike"
	"github.com/ipfw/ipfw/rules"
)

const (
	// mostNear is how many ike blocks are named that come near.
	mostNear = 3
	// mostSpelt is of how many it is asked which is spelt most like an identity, and
	// of how many bytes: strangers choose it.
	mostSpelt, longestSpelt = 256, 128
)

// likely is an ike block that a call may have been meant for.
type likely struct {
	*rules.IKE
	alike int // how much of it
}

// nearest names the ike blocks that come nearest to a call that none is for: those for
// its address that are for somebody else, or those for other addresses. It gives false
// if there are none. Strangers can cause it, as often as events of them are told: it
// looks once at each block.
func (x *exchange) nearest(b blocks, e *ike.Event, out *IKEEvent) bool {
	from, at := e.Remote.Addr(), *x.endpoints.Load()
	var here, elsewhere, others []likely
	seen := map[string]bool{}
	for _, k := range b {
		if k.ike == nil || seen[k.ike.Name] {
			continue
		}
		n := likely{IKE: k.ike}
		seen[n.Name] = true
		switch {
		case !n.Covers(from) || !at[n.Name].has(from):
			n.alike = alike(n.IKE, at[n.Name], from)
			others = append(others, n)
		case n.LocalEndpoint.IsValid() && n.LocalEndpoint != e.Local.Addr():
			elsewhere = append(elsewhere, n)
		case n.RemoteID != "":
			here = append(here, n)
		}
	}
	setting, list, what := e.Setting, here, func(n likely) string { return n.RemoteID }
	switch {
	case setting == "remote_id":
		likest(list, e.RemoteID.String())
		if len(list) == 1 {
			e.Peer, out.Peer = list[0].Name, list[0].Name
		}
	case setting == "remote_endpoint" && len(elsewhere) > 0:
		setting, list, what = "local_endpoint", elsewhere, func(n likely) string { return n.LocalEndpoint.String() }
	case setting == "remote_endpoint":
		list, what = others, endpointText
	default:
		return false
	}
	var texts []string
	all := len(list)
	for len(texts) < min(mostNear, all) {
		best := slices.MinFunc(list, func(n, o likely) int { return cmp.Or(cmp.Compare(o.alike, n.alike), strings.Compare(n.Name, o.Name)) })
		list = slices.DeleteFunc(list, func(n likely) bool { return n.IKE == best.IKE })
		place := cmp.Or(best.Places[setting], best.Place)
		text := fmt.Sprintf("ike %q", best.Name)
		if len(texts) == 0 {
			out.Setting, out.Place = setting, place
		} else {
			text += " (" + place + ")"
		}
		texts = append(texts, text+", whose "+setting+" is "+what(best))
	}
	out.Nearest = strings.Join(texts, "; ")
	if more := all - mostNear; more > 0 {
		out.Nearest += fmt.Sprintf("; and %d more", more)
	}
	return len(texts) > 0
}

// likest marks the block whose remote_id is spelt most like an identity.
func likest(list []likely, id string) {
	if len(list) > mostSpelt || len(id) > longestSpelt {
		return
	}
	ids := make([]string, len(list))
	for i, n := range list {
		ids[i] = n.RemoteID
	}
	if i := slices.Index(ids, rules.Nearest(id, ids)); i >= 0 {
		list[i].alike = 1
	}
}

// endpointText gives the peers of an ike block as a policy writes them.
func endpointText(k likely) string {
	var s []string
	for _, e := range k.Remote[:min(mostNear, len(k.Remote))] {
		s = append(s, cmp.Or(e.Name, e.Range.String()))
	}
	if more := len(k.Remote) - mostNear; more > 0 {
		s = append(s, fmt.Sprintf("%d more", more))
	}
	return strings.Join(s, ", ")
}

// alike is how many bits, from the first on, an address has in common with the nearest
// of an ike block.
func alike(k *rules.IKE, at whereabouts, a netip.Addr) (most int) {
	ends := []netip.Addr{at.call}
	for _, e := range k.Remote {
		ends = append(ends, e.Range.First, e.Range.Last)
	}
	for _, b := range ends {
		if b.BitLen() != a.BitLen() {
			continue
		}
		n, p, q := 0, a.AsSlice(), b.AsSlice()
		for i := range p {
			n += bits.LeadingZeros8(p[i] ^ q[i])
			if p[i] != q[i] {
				break
			}
		}
		most = max(most, n)
	}
	return most
}
