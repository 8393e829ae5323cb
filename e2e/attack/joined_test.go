package attack

import (
	"strings"
	"testing"
)

// Whoever can send to the host sends fragments in the clear beside those that
// come out of an SA. What is delivered as protected came whole out of the SA.
func TestClearFragmentsDoNotJoin(t *testing.T) {
	a := attack(t, "G2", offPath, "clear fragments beside protected ones")
	for _, w := range []way{native, {mode: "tunnel", protocol: "esp", udp: true}, {mode: "tunnel", protocol: "ah", offload: "none"}} {
		for _, v := range []*family{&v4, &v6} {
			a.play(t, v.name+" "+w.String(), v, func(t *testing.T, v *family) { tryFragments(t, a, v, w) })
		}
	}
}

func tryFragments(t *testing.T, a *attempt, v *family, w way) {
	s := newSite(t, v)
	block, f := s.link("peer", 0x1001, w)
	s.run(closed(w) + v.gatewayRules() + block)
	boxes := map[string]*inbox{"self": receive(t, s.gateway, v.any(9999)), "lan": receive(t, s.lan, v.any(9999))}

	id := uint32(4000)
	for to, box := range boxes {
		// The honest use: both pieces out of the SA.
		id++
		whole := marker("whole")
		head, rest := f.fragments(t, f.udp(5000, to, 9999, whole+strings.Repeat("T", 1150)), id)
		f.send(head)
		f.send(rest)
		box.await(whole)
		// The attacker's piece comes in the clear: before and behind the sealed
		// one, as the first and as the second. The words of the true piece in
		// another order have the same checksum.
		for i := range 4 {
			id++
			evil := marker("evil")
			whole := f.udp(5000, to, 9999, evil[:8]+strings.Repeat("Tt", 300)+evil+strings.Repeat("Uu", 290))
			first, second := f.fragments(t, whole, id)
			forged := func(b []byte) []byte {
				b = append([]byte{}, b...)
				data := b[len(b)-200:] // the end of either piece is payload
				for k := 0; k+4 <= len(data); k += 4 {
					data[k], data[k+1], data[k+2], data[k+3] = data[k+2], data[k+3], data[k], data[k+1]
				}
				return b
			}
			switch i {
			case 0:
				s.wan.send(forged(second))
				f.send(first)
			case 1:
				f.send(first)
				s.wan.send(forged(second))
			case 2:
				s.wan.send(forged(first))
				f.send(second)
			case 3:
				f.send(second)
				s.wan.send(forged(first))
			}
			f.fence()
			if box.has(evil[:8]) || box.has(evil) {
				t.Errorf("to %s, order %d: a datagram of a sealed and a clear piece is delivered", to, i)
				a.saw(v.name+" "+w.String(), "order %d: a mix is delivered to %s", i, to)
			}
		}
		// And the attacker's piece between two honest ones does not cost the
		// honest datagram: it is of no SA, and they are.
		id++
		good := marker("beside")
		first, second := f.fragments(t, f.udp(5000, to, 9999, good+strings.Repeat("T", 1150)), id)
		s.wan.send(second)
		f.send(first)
		f.send(second)
		s.wan.send(first)
		f.fence()
		if !box.has(good) {
			t.Errorf("to %s: a clear fragment beside them makes two sealed ones be lost", to)
		}
	}
	if !t.Failed() {
		a.saw(v.name+" "+w.String(), "no mix is delivered, to this host or behind it; whole ones are")
	}
}
