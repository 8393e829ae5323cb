package host

import (
	"net/netip"
	"testing"

	"github.com/ipfw/ipfw/ike"
	"github.com/ipfw/ipfw/packet"
)

// OPAQUE carries what has no ports to be seen, and nothing else; a fragment that
// has none is carried by OPAQUE and ANY alone.
func TestWhatOpaqueCarries(t *testing.T) {
	a, b := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.1")
	pairOf := func(first, last uint16) *pair {
		ts := func(x netip.Addr) []ike.TrafficSelector {
			return []ike.TrafficSelector{{First: x, Last: x, Protocol: packet.UDP, FirstPort: first, LastPort: last}}
		}
		return &pair{ChildSA: ike.ChildSA{LocalTS: ts(a), RemoteTS: ts(b)}}
	}
	whole := packet.Packet{Src: a, Dst: b, Protocol: packet.UDP, SrcPort: 53, DstPort: 53}
	later := packet.Packet{Src: a, Dst: b, Protocol: packet.UDP, Fragment: true, FragOffset: 1480}
	first := whole
	first.Fragment, first.MoreFragment = true, true
	for _, row := range []struct {
		name                string
		pair                *pair
		whole, later, first bool
	}{
		{"OPAQUE", pairOf(0xffff, 0), false, true, false},
		{"ANY", pairOf(0, 0xffff), true, true, true},
		{"53", pairOf(53, 53), true, false, true},
		{"0 to 1023", pairOf(0, 1023), true, false, true},
	} {
		if g, h, i := row.pair.carries(&whole, true), row.pair.carries(&later, true), row.pair.carries(&first, true); g != row.whole || h != row.later || i != row.first {
			t.Errorf("%s: whole %v, later fragment %v, first fragment %v", row.name, g, h, i)
		}
	}
}
