package attack

import (
	"strings"
	"testing"

	"github.com/ipfw/ipfw/packet"
)

// Pieces of two SAs are not one datagram either: each peer answers for its own.
func TestFragmentsOfTwoPeersDoNotJoin(t *testing.T) {
	a := attack(t, "G2", peer, "a fragment in another peer's datagram")
	a.each(t, func(t *testing.T, v *family) {
		s := newSite(t, v)
		block, f := s.link("peer", 0x1001, native)
		other, g := s.link("other", 0x2001, native)
		s.run(closed(native) + v.gatewayRules() + strings.ReplaceAll(strings.ReplaceAll(v.gatewayRules(), `rule "`, `rule "other-`), `"peer"`, `"other"`) + block + other)
		box := receive(t, s.gateway, v.any(9999))
		for i := range uint32(2) {
			evil := marker("evil")
			first, second := f.fragments(t, f.udp(5000, "self", 9999, evil+strings.Repeat("T", 1150)), 700+i)
			if i == 1 {
				first, second = second, first
			}
			g.send(first)
			f.send(second)
			f.fence()
			if box.has(evil) {
				t.Errorf("order %d: a datagram of pieces of two peers is delivered", i)
			}
		}
		a.saw(v.name, "delivered: %d", box.count("evil"))
	})
}

// A datagram that is cut so small that its ports do not show, overlaps, or never
// ends, passes no rule.
func TestTinyAndOverlappingFragments(t *testing.T) {
	a := attack(t, "G19", offPath, "tiny, overlapping and endless fragments")
	a.each(t, func(t *testing.T, v *family) {
		s := newSite(t, v)
		s.run(closed(native) + `
rule "open" {
  action     = "bypass"
  direction  = "in"
  protocol   = "udp"
  local_port = 9000
}
`)
		shut, open := receive(t, s.gateway, v.any(9999)), receive(t, s.gateway, v.any(9000))
		piece := func(id uint32, off int, last bool, data string) []byte {
			return build(t, packet.Spec{Src: v.far, Dst: v.self, Protocol: packet.UDP, ID: id, Fragment: true, FragOffset: off, LastFragment: last, Raw: true, Payload: []byte(data)})
		}
		text := marker("hole")
		header := func(port uint16, n int) string { // the checksum of IPv6 is right for the port 9999 below
			whole := udp(t, v.far, 5000, v.self, port, text+strings.Repeat("x", n))
			return string(whole[len(whole)-n-len(text)-8:])
		}
		to9000, to9999 := header(9000, 200), header(9999, 200)
		// An overlap that makes 9999 of what was judged as 9000.
		s.wan.send(piece(1, 0, false, to9000[:64]))
		s.wan.send(piece(1, 0, false, to9999[:64]))
		s.wan.send(piece(1, 64, true, to9999[64:]))
		// Eight bytes of UDP header alone, and a part of it.
		s.wan.send(piece(2, 0, false, to9999[:8]))
		s.wan.send(piece(2, 8, true, to9999[8:]))
		for i := range uint32(300) { // never ended
			s.wan.send(piece(100+i, 0, false, to9999[:64]))
		}
		good := marker("good")
		whole := udp(t, v.far, 5000, v.self, 9000, good+strings.Repeat("y", 1200))
		parts, err := packet.Fragment(whole, 640, 77)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range parts {
			s.wan.send(p)
		}
		open.await(good)
		if n := shut.count(text); n > 0 {
			t.Errorf("%d datagrams get into a shut port", n)
		}
		a.saw(v.name, "into the shut port: %d; honest fragments into the open one: %d", shut.count(text), open.count(good))
	})
}
