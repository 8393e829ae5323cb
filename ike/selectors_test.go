package ike

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// networks are n networks with gaps between, so that none joins another.
func networks(n int, v6 bool) (list []TrafficSelector) {
	for i := range n {
		p := fmt.Sprintf("10.1.%d.%d/28", i/8, i%8*32)
		if v6 {
			p = fmt.Sprintf("fd01:0:0:%x::/64", 2*i)
		}
		list = append(list, SelectorOf(netip.MustParsePrefix(p)))
	}
	return list
}

// A child may have as many networks as its number can say, 255 (RFC 7296 section
// 3.13). Whoever asks for them gets them or a part, by IKE_AUTH and by
// CREATE_CHILD_SA, and what works goes on.
func TestManySelectors(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, n := range []int{1, 64, 65, 100, 254, 255} {
			t.Run(fmt.Sprintf("%d, IPv6 %v", n, v6), func(t *testing.T) {
				s := newSim(t, 5)
				pa, pb := pskPeers()
				us, them := SelectorOf(netip.MustParsePrefix("10.1.0.0/16")), SelectorOf(netip.MustParsePrefix("10.2.0.0/16"))
				if v6 {
					us, them = SelectorOf(netip.MustParsePrefix("fd01::/16")), SelectorOf(netip.MustParsePrefix("fd02::/16"))
				}
				first := func(p *Peer) *Child {
					return &Child{Name: "first", LocalTS: p.Children[0].LocalTS, RemoteTS: p.Children[0].RemoteTS}
				}
				pa.Children[0].LocalTS, pa.Children[0].RemoteTS = networks(n, v6), []TrafficSelector{them}
				pb.Children[0].LocalTS, pb.Children[0].RemoteTS = []TrafficSelector{them}, []TrafficSelector{us}
				pa.Children, pb.Children = append(pa.Children, first(pa)), append(pb.Children, first(pb))
				a, b := s.twoNodes(pa, pb)
				s.call(a, "b", "first") // IKE_AUTH
				s.run(time.Minute)
				s.call(a, "b", "net") // CREATE_CHILD_SA
				s.run(time.Minute)
				if a.failure() != NoFailure || b.failure() != NoFailure || a.has(ChildUp) != 2 || a.has(IKEUp) != 1 || a.has(IKEDown) != 0 {
					s.dump()
					t.Fatal("not two children on one IKE SA")
				}
				for _, st := range b.Status() {
					for _, ch := range st.Children {
						if len(ch.RemoteTS) != n {
							t.Errorf("%s has %d networks, not %d", ch.Name, len(ch.RemoteTS), n)
						}
					}
				}
			})
		}
	}
}

// Selectors in which nothing has a meaning for us, or that have nothing in common
// with the policy, are refused by TS_UNACCEPTABLE; the IKE SA and its children stay.
func TestSelectorsWithoutMeaning(t *testing.T) {
	for name, odd := range map[string][]TrafficSelector{
		"ends before it begins": {{First: netip.MustParseAddr("10.1.0.9"), Last: netip.MustParseAddr("10.1.0.1"), LastPort: 0xffff}},
		"ports turned round":    {{First: netip.MustParseAddr("10.1.0.1"), Last: netip.MustParseAddr("10.1.0.9"), FirstPort: 9, LastPort: 1}},
		"elsewhere":             {SelectorOf(netip.MustParsePrefix("10.9.0.0/16"))},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSim(t, 6)
			pa, pb := pskPeers()
			pa.Children = append(pa.Children, &Child{Name: "odd"})
			a, b := s.twoNodes(pa, pb)
			s.call(a, "b", "net")
			s.run(time.Minute)
			pa.Children[1].LocalTS = odd
			s.call(a, "b", "odd")
			s.run(time.Minute)
			if b.failure() != NoSelectors || a.failure() != RefusedByPeer && a.failure() != NoSelectors || a.has(IKEDown)+b.has(IKEDown) != 0 || len(s.pairs(a, b, "net")) != 1 {
				s.dump()
				t.Errorf("a says %v, b says %v", a.failure(), b.failure())
			}
		})
	}
}

// What is narrowed is no more than a payload holds, and lies in both lists.
func TestNarrowToAPayload(t *testing.T) {
	offer := networks(MaxSelectors, false)
	var allow []TrafficSelector
	for _, o := range offer { // the two halves of each
		half := o
		half.Last = netip.AddrFrom4([4]byte(o.First.AsSlice())).Next()
		rest := o
		rest.First = half.Last.Next()
		allow = append(allow, half, rest)
	}
	got := narrow(offer, allow)
	if len(got) != MaxSelectors || !subset(got, offer) || !subset(got, allow) {
		t.Errorf("%d selectors", len(got))
	}
	if _, err := parseTS(tsPayload(plTSi, got).body); err != nil {
		t.Error(err)
	}
}

// ANY includes OPAQUE, and ranges of ports do not (RFC 4301 section 4.4.1.1).
func TestOpaque(t *testing.T) {
	host := netip.MustParseAddr("10.1.0.1")
	ts := func(first, last uint16) TrafficSelector {
		return TrafficSelector{First: host, Last: host, Protocol: 17, FirstPort: first, LastPort: last}
	}
	opaque, every, some, none := ts(0xffff, 0), ts(0, 0xffff), ts(1000, 2000), TrafficSelector{}
	for _, row := range []struct{ a, b, want TrafficSelector }{
		{every, opaque, opaque}, {opaque, opaque, opaque}, {every, some, some}, {some, every, some},
		{some, opaque, none}, {ts(0, 0), opaque, none}, {ts(0xffff, 0xffff), opaque, none}, {some, ts(1500, 3000), ts(1500, 2000)},
	} {
		for range 2 {
			got, ok := intersect(row.a, row.b)
			if ok != (row.want != none) || ok && got != row.want {
				t.Errorf("%s and %s: %s %v", row.a, row.b, got, ok)
			}
			row.a, row.b = row.b, row.a
		}
	}
	if !contains(every, opaque) || contains(opaque, every) || contains(some, opaque) || contains(opaque, some) {
		t.Error("what contains what")
	}

	// On the wire, in both directions.
	for _, caller := range []string{"a", "b"} {
		s := newSim(t, 7)
		pa, pb := pskPeers()
		pa.Children[0].LocalTS = []TrafficSelector{{First: netip.MustParseAddr("192.0.2.1"), Last: netip.MustParseAddr("192.0.2.1"), Protocol: 17, FirstPort: 0xffff}}
		a, b := s.twoNodes(pa, pb)
		if caller == "a" {
			s.call(a, "b", "net")
		} else {
			s.call(b, "a", "net")
		}
		s.run(time.Minute)
		if a.failure() != NoFailure || b.failure() != NoFailure || a.has(ChildUp) != 1 || b.has(ChildUp) != 1 {
			s.dump()
			t.Fatalf("%s calls", caller)
		}
		for _, st := range b.Status() {
			if ts := st.Children[0].RemoteTS; len(ts) != 1 || !ts[0].Opaque() {
				t.Errorf("%s calls: the other side has %v", caller, ts)
			}
		}
	}
}
