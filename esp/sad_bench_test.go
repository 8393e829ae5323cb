package esp

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
)

// BenchmarkSAD finds SAs among 2, 1,000 and 100,000, half of them inbound, in
// an order that no cache foresees, and says how much memory one takes:
//
//	Match     an inbound SA by its packet
//	Outbound  an outbound SA by its owner
func BenchmarkSAD(b *testing.B) {
	gcm := suite(b, ESP, "aes-128-gcm-16", "")
	for _, n := range []int{2, 1000, 100_000} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		d := NewSAD()
		owners := make([]Owner, n/2)
		spis := make([]uint32, n/2)
		for i := range n / 2 {
			owners[i] = Owner{Name: "lan", Peer: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})}
			spis[i] = 0x1000 + uint32(i)*7
			p := newPair(b, Config{Suite: gcm, Mode: Tunnel, SPI: spis[i], Owner: owners[i]})
			if d.Insert(p.in) != nil || d.Insert(p.out) != nil {
				b.Fatal("insert")
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		perSA := float64(after.HeapAlloc-before.HeapAlloc) / float64(n)

		pkt := newPair(b, Config{Suite: gcm, Mode: Tunnel}).mustSeal(b, udp4(100))
		b.Run(fmt.Sprintf("Match/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			x := uint32(1)
			for b.Loop() {
				x = x*1664525 + 1013904223
				be.PutUint32(pkt[20:], spis[(x>>8)%uint32(len(spis))])
				if sa, f := d.Match(pkt); sa == nil || f != OK {
					b.Fatal(f)
				}
			}
			b.ReportMetric(perSA, "B/SA")
		})
		b.Run(fmt.Sprintf("Outbound/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			x := uint32(1)
			for b.Loop() {
				x = x*1664525 + 1013904223
				if d.Outbound(owners[(x>>8)%uint32(len(owners))]) == nil {
					b.Fatal("no SA")
				}
			}
		})
		runtime.KeepAlive(d)
	}
}
