package ike

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

// The last request of a peer, sent again from addresses that are not the peer's,
// is not answered there, but for some times where the peer may have moved.
func TestRetransmissionFromElsewhere(t *testing.T) {
	for _, mobike := range []bool{false, true} {
		for _, ended := range []bool{false, true} {
			s, a, b := upTwo(t, func(a, b *Peer) {
				if !mobike {
					a.MOBIKE, b.MOBIKE = Off, Off
				}
			})
			var last Datagram
			s.tap = func(d Datagram) {
				if h, err := parseHeader(d.Data); err == nil && !h.response() && d.Local.Addr() == a.addr {
					last = d
				}
			}
			if ended {
				s.take(a, a.Terminate(s.now, "", ""))
			} else {
				s.take(a, a.Rekey(s.now, "", "net"))
			}
			s.run(3 * time.Second)
			again := func(from string) int {
				o := b.Handle(s.now, Datagram{Local: last.Remote, Remote: netip.MustParseAddrPort(from), Data: slices.Clone(last.Data)})
				return len(o.Send)
			}
			want := 0
			if mobike && !ended {
				want = maxStrays
			}
			n := 0
			for range 100 {
				n += again("198.51.100.7:4500")
			}
			if n != want {
				t.Errorf("mobike %v, ended %v: %d answers to a forged address, want %d", mobike, ended, n, want)
			}
			if again(last.Local.String()) == 0 {
				t.Errorf("mobike %v, ended %v: the peer itself is not answered", mobike, ended)
			}
		}
	}
}
