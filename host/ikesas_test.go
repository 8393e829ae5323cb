package host

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/ike"
	"github.com/ipfw/ipfw/packet"
	"github.com/ipfw/ipfw/rules"
)

func prefix(s string) ike.TrafficSelector { return ike.SelectorOf(netip.MustParsePrefix(s)) }

// testChild is a child as the key exchange gives it.
func testChild(id uint64, block string, local, remote ike.TrafficSelector) *ike.ChildSA {
	key := func() ike.Keys { return ike.Keys{Encryption: make([]byte, 36)} }
	return &ike.ChildSA{
		ID: id, Name: block, Peer: "p", Protocol: ike.ProtoESP, Mode: ike.Tunnel, Encryption: "aes-256-gcm-16", ESN: true,
		SPIIn: 0x1000 + uint32(id), SPIOut: 0x8000 + uint32(id), In: key(), Out: key(),
		Local: netip.MustParseAddr("198.51.100.1"), Remote: netip.MustParseAddr("203.0.113.7"),
		LocalTS: []ike.TrafficSelector{local}, RemoteTS: []ike.TrafficSelector{remote},
	}
}

func testPacket(t *testing.T, proto uint8, src, dst netip.Addr, sp, dp uint16) *packet.Packet {
	t.Helper()
	b, err := packet.Build(packet.Spec{Src: src, Dst: dst, Protocol: proto, SrcPort: sp, DstPort: dp, TCPFlags: packet.ACK, TTL: 64})
	if err != nil {
		t.Fatal(err)
	}
	p := new(packet.Packet)
	if f := packet.Parse(p, b, len(b)); f != packet.OK {
		t.Fatal(f)
	}
	return p
}

// The way to the SA of a packet is the same that a walk over all pairs finds:
// of those that hold the packet, the one with the longest prefix, and of equals
// the one put in use last.
func TestPairsAgainstWalk(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	s := newPairs(esp.NewSAD())
	b := &rules.IPsec{Name: "x"}
	var inUse []*pair // newest first
	slow := func(p *packet.Packet) *pair {
		var best *pair
		bits := -1
		for _, x := range inUse {
			e := endsOf(p, true)
			if !x.holds(&e) {
				continue
			}
			for _, ts := range x.RemoteTS {
				for n := e.remote.BitLen(); n >= 0; n-- {
					q := netip.PrefixFrom(e.remote, n).Masked()
					if q.Addr() == ts.First && ike.SelectorOf(q).Last == ts.Last && n > bits {
						best, bits = x, n
					}
				}
			}
		}
		return best
	}
	addr := func() netip.Addr {
		return netip.AddrFrom4([4]byte{10, byte(rng.IntN(4)), byte(rng.IntN(4)), byte(rng.IntN(8))})
	}
	id := uint64(0)
	for round := range 400 {
		switch {
		case rng.IntN(3) > 0 || len(inUse) == 0:
			id++
			remote := prefix(netip.PrefixFrom(addr(), 8+rng.IntN(25)).Masked().String())
			if rng.IntN(2) == 0 {
				remote.Protocol = packet.TCP
				remote.FirstPort, remote.LastPort = uint16(rng.IntN(3)), uint16(3+rng.IntN(3))
			}
			x, err := s.install(testChild(id, "x", prefix("0.0.0.0/0"), remote), b, true, 1)
			if err != nil {
				t.Fatal(err)
			}
			inUse = append([]*pair{x}, inUse...)
		case rng.IntN(2) == 0:
			i := rng.IntN(len(inUse))
			s.remove(inUse[i].ID)
			inUse = slices.Delete(inUse, i, i+1)
		default: // an older one comes back in use
			i := rng.IntN(len(inUse))
			x := inUse[i]
			s.use(x.ID)
			inUse = append([]*pair{x}, slices.Delete(inUse, i, i+1)...)
		}
		if len(inUse) > 0 {
			c := inUse[rng.IntN(len(inUse))].ChildSA
			c.Remote, c.Local = addr(), addr()
			s.move(&c)
		}
		near, far := map[netip.Addr]bool{}, map[netip.Addr]int{}
		for _, x := range inUse {
			near[x.Local] = true
			far[x.Remote]++
		}
		if len(s.locals()) != len(near) || len(s.far) != len(far) {
			t.Fatalf("round %d: %v and %v, the walk finds %v and %v", round, s.locals(), s.far, near, far)
		}
		for a, n := range far {
			if len(s.towards(a)) != n {
				t.Fatalf("round %d: %d pairs with %s, the walk finds %d", round, len(s.towards(a)), a, n)
			}
		}
		for range 20 {
			proto := []uint8{packet.TCP, packet.UDP}[rng.IntN(2)]
			p := testPacket(t, proto, netip.MustParseAddr("192.0.2.1"), addr(), 1000, uint16(1+rng.IntN(7)))
			got := s.outbound("x", p, nil)
			want := slow(p)
			if want == nil && got == nil {
				continue
			}
			if want == nil || got == nil || got != want.out {
				t.Fatalf("round %d, to %s port %d: %v, the walk finds %v", round, p.Dst, p.DstPort, got, want)
			}
		}
	}
	for _, x := range slices.Clone(inUse) {
		s.remove(x.ID)
	}
	if n := s.sad.Len(); n != 0 {
		t.Errorf("%d SAs are left", n)
	}
	if got := s.outbound("x", testPacket(t, packet.UDP, netip.MustParseAddr("192.0.2.1"), addr(), 1, 2), nil); got != nil {
		t.Errorf("a way is left to %v", got)
	}
}

// make before break: the successor takes over when it is put in use, and the
// predecessor again when the successor goes.
func TestPairsRekey(t *testing.T) {
	s := newPairs(esp.NewSAD())
	b := &rules.IPsec{Name: "x"}
	to := testPacket(t, packet.UDP, netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.1"), 1, 2)
	first, err := s.install(testChild(1, "x", prefix("10.1.0.0/16"), prefix("10.2.0.0/16")), b, true, 1)
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.install(testChild(2, "x", prefix("10.1.0.0/16"), prefix("10.2.0.0/16")), b, false, 1)
	if err != nil {
		t.Fatal(err)
	}
	if s.outbound("x", to, nil) != first.out || s.sad.Inbound(esp.ESP, second.SPIIn) != second.in {
		t.Error("before it is used, the successor must receive and not send")
	}
	s.use(2)
	if s.outbound("x", to, nil) != second.out || s.sad.Inbound(esp.ESP, first.SPIIn) != first.in {
		t.Error("the successor does not send, or the predecessor does not receive")
	}
	s.remove(2)
	if s.outbound("x", to, nil) != first.out {
		t.Error("the predecessor does not send again")
	}
	s.remove(1)
	if s.outbound("x", to, nil) != nil {
		t.Error("an SA that is gone is used")
	}
}

// What comes out of an SA must be what its ends have agreed on: one caller may
// not speak as another (RFC 4301 section 5.2 step 4).
func TestPairCarries(t *testing.T) {
	x := &pair{ChildSA: *testChild(1, "x", prefix("10.1.0.0/16"), prefix("10.99.0.7/32"))}
	from := func(s string) *packet.Packet {
		return testPacket(t, packet.UDP, netip.MustParseAddr(s), netip.MustParseAddr("10.1.0.9"), 1, 2)
	}
	if !x.carries(from("10.99.0.7"), false) {
		t.Error("the caller's own address is refused")
	}
	for _, bad := range []string{"10.99.0.8", "10.1.0.3"} {
		if x.carries(from(bad), false) {
			t.Errorf("%s comes out of the SA of 10.99.0.7", bad)
		}
	}
	outside := testPacket(t, packet.UDP, netip.MustParseAddr("10.99.0.7"), netip.MustParseAddr("10.3.0.1"), 1, 2)
	if x.carries(outside, false) {
		t.Error("the SA is not for 10.3.0.1")
	}
	// An error about traffic of the SA, sent by a router on the other side.
	b, err := packet.Build(packet.Spec{Src: netip.MustParseAddr("10.1.0.9"), Dst: netip.MustParseAddr("10.99.0.7"), Protocol: packet.UDP, SrcPort: 2, DstPort: 1, TTL: 64})
	if err != nil {
		t.Fatal(err)
	}
	var sent packet.Packet
	if f := packet.Parse(&sent, b, len(b)); f != packet.OK {
		t.Fatal(f)
	}
	quote := packet.Unreachable(nil, &sent, netip.MustParseAddr("192.0.2.200"))
	var e packet.Packet
	if f := packet.Parse(&e, quote, len(quote)); f != packet.OK {
		t.Fatal(f)
	}
	if !x.carries(&e, false) {
		t.Error("an ICMP error about the SA's own traffic is refused")
	}
}

// Finding the SA of a packet costs no memory.
func TestOutboundAllocates(t *testing.T) {
	s := newPairs(esp.NewSAD())
	b := &rules.IPsec{Name: "x"}
	for i := range 100 {
		remote := prefix(fmt.Sprintf("10.99.%d.0/24", i))
		if _, err := s.install(testChild(uint64(i+1), "x", prefix("0.0.0.0/0"), remote), b, true, 1); err != nil {
			t.Fatal(err)
		}
	}
	p := testPacket(t, packet.UDP, netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.99.77.3"), 1, 2)
	if n := testing.AllocsPerRun(100, func() {
		if s.outbound("x", p, nil) == nil {
			t.Fatal("no SA")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
