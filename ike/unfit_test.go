package ike

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

// A gateway cannot lend what is somebody else's.
func TestUnfitLoan(t *testing.T) {
	for pool, want := range map[string]string{
		"10.99.0.0/24": "", "192.0.2.0/30": "the gateway's own", "127.0.0.0/24": "no address of a host", "169.254.0.0/16": "no address of a host",
		"224.0.0.0/24": "no address of a host", "198.51.100.0/24": "own by the host", "203.0.113.0/24": "a peer of the policy", "fe80::/64": "no address of a host", "fd99::/64": "",
	} {
		s := newSim(t, 7)
		pa, pb := pskPeers()
		pa.RequestIPv4, pa.RequestIPv6 = true, true
		all := []TrafficSelector{SelectorOf(netip.MustParsePrefix("10.1.0.0/16")), SelectorOf(netip.MustParsePrefix("fd01::/16"))}
		pa.Children[0].RemoteTS, pb.Children[0].LocalTS = all, all
		pb.Pools = []netip.Prefix{netip.MustParsePrefix(pool)}
		other := *pa
		other.Name, other.Endpoint = "other", netip.MustParseAddrPort("203.0.113.2:500")
		a := s.add("a", "192.0.2.1", Config{Peers: []*Peer{pa, &other}, Unfit: func(a, peer netip.Addr) string {
			if a == netip.MustParseAddr("198.51.100.2") && peer == netip.MustParseAddr("192.0.2.2") {
				return "own by the host"
			}
			return ""
		}})
		b := s.add("b", "192.0.2.2", Config{Peers: []*Peer{pb}})
		s.call(a, "b", "net")
		s.run(3 * time.Second)
		told := ""
		for _, e := range a.log {
			if e.Failure == NoAddress {
				told = e.Detail
			}
		}
		if up := len(s.pairs(a, b, "net")) == 1; up != (want == "") || !strings.Contains(told, want) || len(a.sas) != btoi(want == "") {
			s.dump()
			t.Errorf("%s: up %v, told %q, want %q", pool, up, told, want)
		}
	}
}
