package engine

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// randomRanges are ranges of both families in a small space, so that many
// overlap, touch, or are one address.
func randomRanges(r *rand.Rand, n int) []AddrRange {
	out := make([]AddrRange, n)
	for i := range out {
		first := uint64(r.IntN(4000))
		out[i] = AddrRange{testAddr(first, i%2 == 0), testAddr(first+uint64(r.IntN(3)), i%2 == 0)}
	}
	return out
}

// testAddr is one of few addresses at the end of what the family has.
func testAddr(n uint64, v4 bool) netip.Addr {
	if v4 {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(1<<32-4002+n))
		return netip.AddrFrom4(b)
	}
	b := netip.MustParseAddr("2001:db8::").As16()
	if n > 2000 { // on both sides of where the low half is full
		b[7], n = 1, n-2000
	} else {
		n += 1<<64 - 2001
	}
	binary.BigEndian.PutUint64(b[8:], n)
	return netip.AddrFrom16(b)
}

// The sorted list holds the addresses that the list holds, and no others.
func TestAddrIndex(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		list := randomRanges(r, longList+1+r.IntN(400))
		x := indexOf(list)
		if len(x.v4)+len(x.v6) >= len(list) && len(list) > 300 {
			t.Fatalf("%d ranges became %d: none were joined", len(list), len(x.v4)+len(x.v6))
		}
		for n := range uint64(4002) {
			for _, v4 := range []bool{true, false} {
				a := testAddr(n, v4)
				if got, want := x.covers(AddrRange{a, a}), inAddrs(list, a); got != want {
					t.Fatalf("%s: %v, want %v", a, got, want)
				}
			}
		}
		for range 200 { // what lies in several ranges that touch is covered too
			q := randomRanges(r, 2)[r.IntN(2)]
			want := true
			for a := q.First; ; a = a.Next() {
				want = want && inAddrs(list, a)
				if a == q.Last {
					break
				}
			}
			if got := x.covers(q); got != want {
				t.Fatalf("%s: covered %v, want %v", q, got, want)
			}
		}
	}
}

// The last address of each family joins nothing behind it.
func TestAddrIndexEnds(t *testing.T) {
	for _, ends := range [][2]string{{"0.0.0.0", "255.255.255.255"}, {"::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"}} {
		first, last := netip.MustParseAddr(ends[0]), netip.MustParseAddr(ends[1])
		list := []AddrRange{{last, last}, {first, first}}
		for range longList {
			list = append(list, AddrRange{last, last}, AddrRange{first, first})
		}
		x := indexOf(list)
		if !x.covers(AddrRange{first, first}) || !x.covers(AddrRange{last, last}) || x.covers(AddrRange{first, last}) ||
			x.covers(AddrRange{first.Next(), first.Next()}) || len(x.v4)+len(x.v6) != 2 {
			t.Errorf("%s to %s: %v", first, last, x)
		}
	}
}

// A rule with a long list decides as the same rule asked entry by entry: at
// either side, in each direction, from either end of the forward path.
func TestLongLists(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, size := range []int{longList + 1, maxBoxes + 10} {
		rule := Rule{Name: "list", Action: Bypass, In: true, Out: true, Forward: true,
			Selector: Selector{Remote: randomRanges(r, size), Local: randomRanges(r, size)}}
		p := &Policy{Rules: []Rule{rule}}
		s := compile(p, nil)
		if s.policy.Rules[0].index == nil || p.Rules[0].index != nil || s.given != p {
			t.Fatal("the list is not sorted, or the policy is changed")
		}
		seen := map[bool]int{}
		for range 20000 {
			v4 := r.IntN(2) == 0
			a, b := testAddr(uint64(r.IntN(4002)), v4), testAddr(uint64(r.IntN(4002)), v4)
			if i, j := r.IntN(size), r.IntN(size); r.IntN(2) == 0 && i%2 == j%2 { // of one family
				v4, a, b = i%2 == 0, rule.Local[i].First, rule.Remote[j].Last
			}
			in := Input{Dir: Direction(r.IntN(int(directionCount)))}
			in.Packet.Src, in.Packet.Dst, in.Packet.Version, in.Packet.Protocol = a, b, 4, 17
			if !v4 {
				in.Packet.Version = 6
			}
			q := queryOf(&in)
			want := rule.mismatch(&q) == matches
			if got := s.lookup(&q, 0, again).Rule == 0; got != want {
				t.Fatalf("%v %s -> %s: %v, want %v", in.Dir, a, b, got, want)
			}
			seen[want]++
		}
		if seen[true] < 50 || seen[false] < 50 {
			t.Fatalf("%v", seen)
		}
	}
}

// Whether a tunnel's local side has more than its remote one is known before any
// packet comes, and is the same as asked address by address.
func TestLongBeyond(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	seen := map[bool]int{}
	for range 60 {
		rule := Rule{Name: "list", Action: Protect, Forward: true, Selector: Selector{Local: randomRanges(r, 6), Remote: randomRanges(r, 40)}}
		switch r.IntN(3) {
		case 0:
			rule.Local = nil
		case 1:
			rule.Local = rule.Remote[:20]
		}
		long := &indexed(&Policy{Rules: []Rule{rule}}).Rules[0]
		for n := range uint64(4002) {
			for _, v4 := range []bool{true, false} {
				got, want := long.beyond(testAddr(n, v4)), rule.beyond(testAddr(n, v4))
				// Ranges that touch cover together what neither covers alone.
				if got && !want || got != want && len(rule.Local) != 6 {
					t.Fatalf("%s: %v, want %v in %v, %v", testAddr(n, v4), got, want, rule.Local, rule.Remote)
				}
				seen[want]++
			}
		}
	}
	if seen[true] < 50 || seen[false] < 50 {
		t.Fatalf("%v", seen)
	}
}

// Within is about whole ranges, of either family, and an empty list holds nothing.
func TestWithin(t *testing.T) {
	ranges := func(list ...string) (out []AddrRange) {
		for _, s := range list {
			p := netip.MustParsePrefix(s)
			out = append(out, AddrRange{p.Addr(), lastOf(p)})
		}
		return out
	}
	for _, row := range []struct {
		list, in []AddrRange
		want     bool
	}{
		{nil, nil, true},
		{ranges("192.0.2.1/32"), nil, false},
		{ranges("192.0.2.0/24"), ranges("192.0.2.1/32"), false},
		{ranges("192.0.2.1/32", "fd00::5/128"), ranges("192.0.2.0/24", "fd00::/64"), true},
		{ranges("192.0.2.0/24"), ranges("192.0.2.0/25", "192.0.2.128/25"), true},
		{ranges("192.0.2.0/24", "fd00::/63"), ranges("192.0.2.0/24", "fd00::/64"), false},
	} {
		if got := Within(row.list, row.in); got != row.want {
			t.Errorf("%v within %v: %t", row.list, row.in, got)
		}
	}
}
