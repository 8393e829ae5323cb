package classify

import (
	"math/rand/v2"
	"testing"
)

// randomAddr favours few distinct high bits, so that ranges nest and overlap.
func randomAddr(r *rand.Rand, f Family) Addr {
	if f == IPv4 {
		return Addr{Lo: uint64(r.Uint32N(4)<<30 | r.Uint32N(4)<<12 | r.Uint32N(8))}
	}
	return Addr{Hi: r.Uint64N(3)<<61 | r.Uint64N(4), Lo: r.Uint64N(2)<<63 | r.Uint64N(4)}
}

// randomRange gives a wildcard, one address, a prefix or any range.
func randomRange(r *rand.Rand, f Family) (first, last Addr) {
	a := randomAddr(r, f)
	switch r.IntN(6) {
	case 0, 1:
		return Addr{}, f.Last()
	case 2:
		return a, a
	case 3, 4:
		bits := 32
		if f == IPv6 {
			bits = 128
		}
		n := r.IntN(bits + 1) // host bits
		var m Addr
		if n > 64 {
			m = Addr{Hi: 1<<(n-64) - 1, Lo: 1<<64 - 1}
		} else {
			m = Addr{Lo: 1<<n - 1}
		}
		return Addr{a.Hi &^ m.Hi, a.Lo &^ m.Lo}, Addr{a.Hi | m.Hi, a.Lo | m.Lo}
	}
	b := randomAddr(r, f)
	if b.Less(a) && r.IntN(10) > 0 { // a few are empty
		a, b = b, a
	}
	return a, b
}

func randomPorts(r *rand.Rand) (first, last uint16) {
	switch r.IntN(5) {
	case 0, 1:
		return 0, 1<<16 - 1
	case 2:
		p := uint16(r.IntN(6))
		return p, p
	case 3:
		return 1024, 1<<16 - 1
	}
	a, b := uint16(r.IntN(1<<16)), uint16(r.IntN(1<<16))
	if b < a && r.IntN(10) > 0 {
		a, b = b, a
	}
	return a, b
}

// randomBoxes gives n boxes of about n/2 rules, in no order, some twice.
func randomBoxes(r *rand.Rand, n int, f Family) []Box {
	boxes := make([]Box, n)
	for i := range boxes {
		b := &boxes[i]
		if i > 0 && r.IntN(8) == 0 { // the same, or nearly
			*b = boxes[r.IntN(i)]
		} else {
			b.LocalFirst, b.LocalLast = randomRange(r, f)
			b.RemoteFirst, b.RemoteLast = randomRange(r, f)
			b.LocalPortFirst, b.LocalPortLast = randomPorts(r)
			b.RemotePortFirst, b.RemotePortLast = randomPorts(r)
			switch r.IntN(3) {
			case 0:
				b.ProtoLast = 255
			case 1:
				b.ProtoFirst = uint8(r.IntN(3))
				b.ProtoLast = b.ProtoFirst
			default:
				b.ProtoFirst, b.ProtoLast = uint8(r.IntN(8)), uint8(r.IntN(256))
			}
		}
		b.Rule = int32(r.IntN(n/2 + 1))
		if r.IntN(50) == 0 {
			b.Rule = MaxRule - b.Rule
		}
	}
	return boxes
}

// near gives a value at or beside one of two bounds, or between them.
func near(r *rand.Rand, first, last uint64) uint64 {
	switch r.IntN(6) {
	case 0:
		return first - 1
	case 1, 2:
		return first
	case 3:
		return last + 1
	case 4:
		return last
	}
	if last <= first || last-first == 1<<64-1 {
		return r.Uint64()
	}
	return first + r.Uint64N(last-first+1)
}

// nearAddr does the same for addresses, in either half.
func nearAddr(r *rand.Rand, first, last Addr, f Family) Addr {
	if f == IPv4 {
		return Addr{Lo: near(r, first.Lo, last.Lo) & (1<<32 - 1)}
	}
	a := Addr{Hi: first.Hi, Lo: near(r, first.Lo, last.Lo)}
	if r.IntN(2) == 0 {
		a.Hi = last.Hi
	}
	if r.IntN(3) == 0 {
		a.Hi = near(r, first.Hi, last.Hi)
	}
	return a
}

// randomKey gives a packet at a corner of b.
func randomKey(r *rand.Rand, b *Box, f Family) Key {
	return Key{
		Local:      nearAddr(r, b.LocalFirst, b.LocalLast, f),
		Remote:     nearAddr(r, b.RemoteFirst, b.RemoteLast, f),
		LocalPort:  uint16(near(r, uint64(b.LocalPortFirst), uint64(b.LocalPortLast))),
		RemotePort: uint16(near(r, uint64(b.RemotePortFirst), uint64(b.RemotePortLast))),
		Proto:      uint8(near(r, uint64(b.ProtoFirst), uint64(b.ProtoLast))),
	}
}

// compare asks the classifier and its slow twin for every rule that holds
// each of a number of keys.
func compare(t *testing.T, r *rand.Rand, boxes []Box, f Family, keys int) {
	t.Helper()
	c, slow := Build(boxes, f), Linear(boxes)
	for range keys {
		var k Key
		if len(boxes) > 0 {
			k = randomKey(r, &boxes[r.IntN(len(boxes))], f)
		}
		for from, n := int32(0), 0; n < 8; n++ {
			want := slow.First(&k, from)
			if got := c.First(&k, from); got != want {
				t.Fatalf("%d boxes: First(%+v, %d) = %d, want %d", len(boxes), k, from, got, want)
			}
			if want < 0 {
				break
			}
			from = want + 1
		}
		from := int32(r.IntN(len(boxes) + 2))
		if got, want := c.First(&k, from), slow.First(&k, from); got != want {
			t.Fatalf("%d boxes: First(%+v, %d) = %d, want %d", len(boxes), k, from, got, want)
		}
	}
}

func TestFirstRandom(t *testing.T) {
	for _, f := range []Family{IPv4, IPv6} {
		for seed := range uint64(300) {
			r := rand.New(rand.NewPCG(seed, uint64(f)))
			n := 1 << r.IntN(9)
			compare(t, r, randomBoxes(r, r.IntN(n)+r.IntN(2), f), f, 200)
		}
	}
}
