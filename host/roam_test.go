package host

import (
	"net/netip"
	"testing"
)

// What the key exchange does not follow is told once; the next place of the peer is
// told all the same, and not more often than once a second.
func TestTellRoamed(t *testing.T) {
	at := netip.MustParseAddrPort
	p := &pair{}
	for i, x := range []struct {
		from string
		now  int64
		want bool
	}{
		{"203.0.113.9:4500", 1, true},             // another address
		{"203.0.113.9:4500", 2, false},            // again
		{"203.0.113.9:4500", 5 * roamEach, false}, // nobody has followed: no use
		{"203.0.113.7:4501", 5*roamEach + 1, true},
		{"203.0.113.9:4500", 5*roamEach + 2, false}, // in turns: not each packet
		{"203.0.113.9:4500", 7 * roamEach, true},
	} {
		if got := p.tellRoamed(at(x.from), x.now); got != x.want {
			t.Errorf("%d: %s told: %v", i, x.from, got)
		}
	}
	p.roamed.Store(nil) // the pair has moved
	if !p.tellRoamed(at("203.0.113.9:4500"), 7*roamEach+1) {
		t.Error("after a move nothing is told")
	}
	if n := testing.AllocsPerRun(100, func() { p.tellRoamed(at("203.0.113.9:4500"), 8*roamEach) }); n != 0 {
		t.Errorf("%v allocations for a packet that is not told", n)
	}
}
