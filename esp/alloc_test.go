//go:build !race

package esp

import (
	"net/netip"
	"testing"
)

// TestNoAllocs: sealing and opening a packet, and finding its SA, allocate
// nothing.
func TestNoAllocs(t *testing.T) {
	for _, s := range allSuites(t) {
		for _, mode := range []Mode{Transport, Tunnel} {
			owner := Owner{Name: "branch", Peer: v4b}
			p := newPair(t, Config{Suite: s, Mode: mode, ESN: true, Owner: owner,
				Src: netip.MustParseAddr("10.1.0.5"), Dst: netip.MustParseAddr("10.2.0.9")})
			d := NewSAD()
			if d.Insert(p.in) != nil || d.Insert(p.out) != nil {
				t.Fatal("insert")
			}
			pkt := udp4(1400)
			buf := make([]byte, 0, 1600)
			got := testing.AllocsPerRun(100, func() {
				var f Fault
				if buf, _, _, f = d.Seal(buf[:0], pkt, owner, 0); f != OK {
					t.Fatal(f)
				}
				if _, _, _, f = d.Open(buf, 0); f != OK {
					t.Fatal(f)
				}
			})
			if got != 0 {
				t.Errorf("%s %s: %g allocations for a packet", s, mode, got)
			}
		}
	}
}

// TestNoAllocsForBadInput: nobody can make this host use memory by sending it
// packets that do not open.
func TestNoAllocsForBadInput(t *testing.T) {
	eachBadPair(t, func(t *testing.T, p *pair, d *SAD) {
		buf := make([]byte, 2000)
		p.in.win.off = true // authentic ones go through the whole code each time
		for _, bad := range badInputs(t, p) {
			if got := testing.AllocsPerRun(10, func() { d.Open(buf[:copy(buf, bad.pkt)], 0) }); got != 0 {
				t.Errorf("%s: %g allocations", bad.name, got)
			}
		}
	})
}
