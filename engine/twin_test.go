package engine

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/ipfw/ipfw/packet"
)

// linear is the slow twin of spd.lookup: every rule, every field, in order.
func linear(p *Policy, q *query) int32 {
	for i := range p.Rules {
		if r := &p.Rules[i]; !r.Audit && r.mismatch(q) == matches {
			return int32(i)
		}
	}
	return DefaultRule
}

// Small worlds, so that random rules and packets meet.
var (
	worldProtos  = []uint8{packet.TCP, packet.UDP, packet.ICMP, packet.ICMPv6, packet.SCTP, packet.GRE}
	worldMasters = []string{"r0", "r1", "r2", "r3"} // rules that let masters pass
	worldIfs     = []string{"eth0", "eth1", "wg0", "wg1"}
)

func worldAddr(r *rand.Rand, v6 bool) netip.Addr {
	if v6 {
		b := [16]byte{0x20, 1, 0xd, 0xb8}
		binary.BigEndian.PutUint16(b[6:], uint16(r.IntN(3)))
		b[15] = byte(r.IntN(8))
		return netip.AddrFrom16(b)
	}
	return netip.AddrFrom4([4]byte{10, byte(r.IntN(3)), 0, byte(r.IntN(8))})
}

func some[T any](r *rand.Rand, most int, one func() T) []T {
	if r.IntN(3) == 0 {
		return nil
	}
	out := make([]T, 1+r.IntN(most))
	for i := range out {
		out[i] = one()
	}
	return out
}

func randomSelector(r *rand.Rand) Selector {
	addr := func() AddrRange {
		a, b := worldAddr(r, true), worldAddr(r, true)
		if r.IntN(2) == 0 {
			a, b = worldAddr(r, false), worldAddr(r, false)
		}
		if b.Less(a) {
			a, b = b, a
		}
		return AddrRange{a, b}
	}
	port := func() PortRange {
		a, b := uint16(r.IntN(10)), uint16(r.IntN(10))
		return PortRange{min(a, b), max(a, b)}
	}
	s := Selector{Local: some(r, 3, addr), Remote: some(r, 3, addr), Protocols: some(r, 2, func() uint8 { return worldProtos[r.IntN(len(worldProtos))] })}
	switch r.IntN(4) {
	case 0:
		s.LocalPorts, s.RemotePorts = some(r, 3, port), some(r, 3, port)
	case 1:
		s.ICMP = some(r, 3, func() ICMPSel {
			return ICMPSel{worldProtos[2+r.IntN(2)], uint8(r.IntN(4)), int16(r.IntN(3) - 1)}
		})
	}
	if r.IntN(6) == 0 {
		s.Interfaces = []string{[]string{"eth0", "wg*", "*"}[r.IntN(3)]}
	}
	if r.IntN(6) == 0 {
		s.DSCP = []uint8{uint8(r.IntN(3))}
	}
	if r.IntN(6) == 0 {
		s.RelatedTo = []string{worldMasters[r.IntN(2)], worldMasters[2]}
	}
	return s
}

func randomPolicy(r *rand.Rand, n int) *Policy {
	p := &Policy{Default: [directionCount]Verdict{Verdict(r.IntN(2)), Verdict(r.IntN(2)), Verdict(r.IntN(2))}}
	for i := range n {
		d := r.IntN(4)
		p.Rules = append(p.Rules, Rule{
			Name: fmt.Sprint("r", i), Action: Verdict(r.IntN(2)), In: d == 0 || d == 3, Out: d == 1 || d == 3, Forward: d == 2,
			OpenedBy: Opener(r.IntN(3)), Selector: randomSelector(r), Audit: r.IntN(10) == 0,
		})
	}
	return p
}

func randomQuery(r *rand.Rand) query {
	var in Input
	v6 := r.IntN(2) == 0
	p := &in.Packet
	p.Version = 4
	p.Protocol = worldProtos[r.IntN(len(worldProtos))]
	if v6 {
		p.Version = 6
	}
	p.Src, p.Dst, p.TOS = worldAddr(r, v6), worldAddr(r, v6), uint8(r.IntN(4))<<2
	if hasPorts(p.Protocol) {
		p.SrcPort, p.DstPort = uint16(r.IntN(10)), uint16(r.IntN(10))
	} else if p.Protocol != packet.GRE {
		p.HasICMP, p.ICMPType, p.ICMPCode = true, uint8(r.IntN(4)), uint8(r.IntN(3))
	}
	in.Dir = Direction(r.IntN(3))
	if in.Dir != Out {
		in.InIf = worldIfs[r.IntN(len(worldIfs))]
	}
	if in.Dir != In {
		in.OutIf = worldIfs[r.IntN(len(worldIfs))]
	}
	if r.IntN(2) == 0 {
		in.master = &query{stated: worldMasters[r.IntN(4)]}
	}
	return queryOf(&in)
}

func TestLookupAgainstLinear(t *testing.T) {
	matched := 0
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		p := randomPolicy(r, 1+r.IntN(60))
		s := compile(p, nil)
		for range 2000 {
			q := randomQuery(r)
			want := linear(p, &q)
			got := s.lookup(&q, 0, again)
			if got.Rule != want {
				t.Fatalf("seed %d: %+v: rule %d, the linear twin says %d", seed, q, got.Rule, want)
			}
			if want >= 0 {
				matched++
			}
		}
	}
	if matched < 60*2000/4 {
		t.Errorf("only %d lookups matched a rule: the worlds do not meet", matched)
	}
}

// A rule whose lists multiply to more boxes than one rule may have is looked
// at twice, and still exact.
func TestLongListsAgainstLinear(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	for range 20 {
		var long Selector
		for i := range 60 {
			a := netip.AddrFrom4([4]byte{10, byte(r.IntN(3)), 0, byte(i % 8)})
			long.Local = append(long.Local, AddrRange{a, a})
			long.Remote = append(long.Remote, AddrRange{a, a})
			long.LocalPorts = append(long.LocalPorts, PortRange{uint16(i % 10), uint16(i % 10)})
		}
		long.LocalPorts = long.LocalPorts[:3]
		p := &Policy{Rules: []Rule{{Name: "long", Action: Bypass, In: true, Out: true, Forward: true, Selector: long}}}
		s := compile(p, nil)
		if s.state[0].boxed {
			t.Fatal("the rule was meant to be too long for boxes")
		}
		for range 2000 {
			q := randomQuery(r)
			if got, want := s.lookup(&q, 0, again).Rule, linear(p, &q); got != want {
				t.Fatalf("%+v: rule %d, want %d", q, got, want)
			}
		}
	}
}

func TestNoAllocs(t *testing.T) {
	b := newBench(t, webServer(t))
	b.talk(handshake...)
	for _, line := range []string{clientLine + " ack", "in tcp 203.0.113.9:1 -> 198.51.100.10:81", "in icmp 5/1 192.0.2.1 -> 192.0.2.2", "out tcp 198.51.100.10:1 -> 203.0.113.9:23"} {
		in := b.input(line)
		if n := testing.AllocsPerRun(200, func() { b.Judge(&in) }); n != 0 {
			t.Errorf("%s: %v allocations", line, n)
		}
	}
}

// Judging, reloading, listing and expiring at once; for the race detector and
// for the promise that no policy in force would let the packet pass.
func TestConcurrentUse(t *testing.T) {
	b := newBench(t, webServer(t))
	closed := webServer(t)
	closed.Rules = closed.Rules[2:]
	inputs := []Input{b.input("in tcp 192.0.2.1:40000 -> 198.51.100.10:443"), b.input("out udp 198.51.100.10:1 -> 203.0.113.9:53"), b.input("in udp 203.0.113.9:9 -> 198.51.100.10:9")}
	var wg sync.WaitGroup
	stop := time.Now().Add(200 * time.Millisecond)
	loop := func(f func(i int)) {
		wg.Go(func() {
			for i := 0; time.Now().Before(stop); i++ {
				f(i)
			}
		})
	}
	for range 3 {
		loop(func(i int) {
			in := inputs[i%len(inputs)]
			if r := b.Judge(&in); i%len(inputs) == 2 && r.Verdict != Discard {
				t.Errorf("%v by rule %d", r.Verdict, r.Rule)
			}
		})
	}
	loop(func(i int) { b.Reload([]*Policy{webServer(t), closed}[i%2]) })
	loop(func(i int) {
		b.Expire(int64(i))
		b.Stats()
		b.Flows(0, func(FlowInfo) bool { return true })
	})
	wg.Wait()
}
