package classify

import (
	"math/rand/v2"
	"testing"
)

// hostile are policies that defeat cutting: whatever the builder does, it must
// stay inside its budget and be right.
var hostile = []struct {
	name string
	box  func(r *rand.Rand, i, n uint64, b *Box)
}{
	{"all the same", func(r *rand.Rand, i, n uint64, b *Box) {}},
	{"nested", func(r *rand.Rand, i, n uint64, b *Box) {
		b.LocalFirst.Lo, b.LocalLast.Lo = n-i, 1<<32-1-n+i
		b.RemoteFirst.Lo, b.RemoteLast.Lo = n-i, 1<<32-1-n+i
	}},
	{"staggered", func(r *rand.Rand, i, n uint64, b *Box) {
		b.LocalFirst.Lo, b.LocalLast.Lo = i, i+n
		b.RemoteFirst.Lo, b.RemoteLast.Lo = n-i, 2*n-i
	}},
	{"grid", func(r *rand.Rand, i, n uint64, b *Box) {
		if i%2 == 0 {
			b.LocalFirst.Lo, b.LocalLast.Lo = i<<12, i<<12
		} else {
			b.RemoteFirst.Lo, b.RemoteLast.Lo = i<<12, i<<12
		}
	}},
	{"grid of five", func(r *rand.Rand, i, n uint64, b *Box) {
		switch i % 5 {
		case 0:
			b.LocalFirst.Lo, b.LocalLast.Lo = i<<12, i<<12
		case 1:
			b.RemoteFirst.Lo, b.RemoteLast.Lo = i<<12, i<<12
		case 2:
			b.LocalPortFirst, b.LocalPortLast = uint16(i), uint16(i)
		case 3:
			b.RemotePortFirst, b.RemotePortLast = uint16(i), uint16(i)
		case 4:
			b.ProtoFirst, b.ProtoLast = uint8(i), uint8(i)
		}
	}},
	{"wide ranges", func(r *rand.Rand, i, n uint64, b *Box) {
		b.LocalFirst.Lo, b.LocalLast.Lo = r.Uint64N(1<<31), 1<<31+r.Uint64N(1<<31)
		b.RemoteFirst.Lo, b.RemoteLast.Lo = r.Uint64N(1<<31), 1<<31+r.Uint64N(1<<31)
		b.LocalPortFirst, b.LocalPortLast = uint16(r.IntN(1<<15)), 1<<15+uint16(r.IntN(1<<15))
		b.RemotePortFirst, b.RemotePortLast = uint16(r.IntN(1<<15)), 1<<15+uint16(r.IntN(1<<15))
	}},
	{"one address, any port range", func(r *rand.Rand, i, n uint64, b *Box) {
		p, q := uint16(r.IntN(1<<16)), uint16(r.IntN(1<<16))
		b.RemotePortFirst, b.RemotePortLast = min(p, q), max(p, q)
	}},
}

func hostileBoxes(t testing.TB, which, n int, f Family) []Box {
	r := rand.New(rand.NewPCG(uint64(which), uint64(n)))
	boxes := make([]Box, n)
	for i := range boxes {
		boxes[i] = f.Any(int32(i))
		hostile[which].box(r, uint64(i), uint64(n), &boxes[i])
		if f == IPv6 { // the IPv4 addresses in the middle of the IPv6 ones
			for _, a := range []*Addr{&boxes[i].LocalFirst, &boxes[i].LocalLast, &boxes[i].RemoteFirst, &boxes[i].RemoteLast} {
				if *a != f.Last() {
					*a = Addr{Hi: a.Lo >> 16, Lo: a.Lo << 48}
				}
			}
		}
	}
	return boxes
}

func TestHostile(t *testing.T) {
	const n = 600
	for _, f := range []Family{IPv4, IPv6} {
		for which, h := range hostile {
			t.Run(h.name, func(t *testing.T) {
				boxes := hostileBoxes(t, which, n, f)
				c := Build(boxes, f)
				boxBytes := map[Family]int{IPv4: 32, IPv6: 80}[f]
				if limit := (roomPerBox*n + minRoom) * boxBytes; c.Bytes() > limit {
					t.Errorf("takes %d bytes, the budget is %d", c.Bytes(), limit)
				}
				compare(t, rand.New(rand.NewPCG(1, 1)), boxes, f, 500)
			})
		}
	}
}

func BenchmarkHostile(b *testing.B) {
	for _, n := range []int{1000, 10000, 100000} {
		for which, h := range hostile {
			b.Run(h.name+"/"+sizeName(n), func(b *testing.B) {
				boxes := hostileBoxes(b, which, n, IPv4)
				c := Build(boxes, IPv4)
				r := rand.New(rand.NewPCG(1, 1))
				keys := make([]Key, 4096)
				for i := range keys {
					keys[i] = randomKey(r, &boxes[r.IntN(n)], IPv4)
				}
				i := 0
				for b.Loop() {
					c.First(&keys[i%len(keys)], 0)
					i++
				}
				b.StopTimer()
				b.ReportMetric(float64(c.Bytes())/float64(n), "B/rule")
			})
		}
	}
}

func sizeName(n int) string { return map[int]string{1000: "1000", 10000: "10000", 100000: "100000"}[n] }
