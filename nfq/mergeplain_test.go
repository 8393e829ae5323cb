package nfq

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"testing"
	"unsafe"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
)

// opening is one end that opens what comes in UDP, and merges it.
type opening struct {
	engine *engine.Engine
	merge  *merger
	u      engine.Unsealed
	out    []merged
	plain  int
}

// natSA is an SA of transport mode in UDP, beyond a NAT.
func natSA(t testing.TB, d esp.Direction) *esp.SA {
	t.Helper()
	suite, err := esp.NewSuite(esp.ESP, "aes-128-gcm-16", "")
	if err != nil {
		t.Fatal(err)
	}
	key, _, err := suite.Keys(make([]byte, suite.KeyMaterial()))
	if err != nil {
		t.Fatal(err)
	}
	sa, err := esp.New(esp.Config{SPI: 0x1001, Direction: d, Mode: esp.Transport, Suite: suite, EncryptionKey: key, ThroughNAT: true,
		Encap: esp.Encap{SrcPort: 4500, DstPort: 4500}, Src: addrOf("10.0.0.1"), Dst: addrOf("10.0.0.2"), Owner: esp.Owner{Name: "peer"}})
	if err != nil {
		t.Fatal(err)
	}
	return sa
}

func newOpening(t testing.TB) *opening {
	sad := esp.NewSAD()
	if err := sad.Insert(natSA(t, esp.In)); err != nil {
		t.Fatal(err)
	}
	o := &opening{engine: engine.New(&engine.Policy{}, engine.Options{SAD: sad, IsLocal: func(netip.Addr) bool { return true }})}
	o.merge = newMerger(func(m *train) {
		var b []byte
		for _, v := range m.iov[1:] {
			b = append(b, unsafe.Slice(v.Base, v.Len)...)
		}
		if p := &m.in.Packet; p.Len != len(b) || p.Seq != 0 && len(p.Bytes) != p.Payload {
			t.Errorf("%d bytes, and the packet says %d", len(b), p.Len)
		}
		o.out = append(o.out, merged{b, m.vnetHeader(), m.size, m.n + m.past})
	})
	return o
}

// take opens one datagram; again says that it came with the one before.
func (o *opening) take(in *engine.Input, b []byte, again bool) {
	o.u.Again = again
	if r := o.engine.Unseal(in, b, &o.u); r.Verdict != engine.Protect {
		return
	}
	if o.u.Plain != nil {
		o.plain++
	}
	o.merge.add(&o.u)
}

// TestMergePlain: segments whose headers are not made come out as those whose
// headers are.
func TestMergePlain(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 9))
	plain, lessPackets := 0, 0
	for range 300 {
		seal := natSA(t, esp.Out)
		fast, slow := newOpening(t), newOpening(t)
		outer := [2]engine.Input{}
		for i := range outer {
			outer[i] = engine.Input{Arriving: true, Now: int64(1 + r.IntN(2)), InIf: "eth0"}
			outer[i].Packet = packet.Packet{Version: 4, Src: addrOf("10.0.0.1"), Dst: addrOf("10.0.0.2"), Protocol: packet.UDP, HasPorts: true,
				SrcPort: 4500, DstPort: 4500, TTL: 64, TOS: uint8(r.IntN(2) * 4), DontFragment: true, Payload: 28}
		}
		from, last, count := 0, -1, 0
		seq := [2]uint32{5000, 1<<32 - 9000}
		for range 80 {
			flow := r.IntN(8) / 7
			size := 500
			if r.IntN(10) == 0 {
				size = r.IntN(600)
			}
			b := superPacket(t, false, size, func(s *packet.Spec) {
				s.TCPFlags, s.Seq, s.SrcPort = packet.ACK, seq[flow], uint16(1000+flow)
				switch r.IntN(40) {
				case 0:
					s.TCPFlags |= packet.PSH
				case 1:
					s.TCPFlags |= packet.FIN
				case 2:
					s.Window++
				case 3:
					s.TCPOptions = nil
				case 4:
					s.Seq += 7
				case 5:
					s.Protocol = packet.UDP
				}
			})
			seq[flow] += uint32(size)
			b, _, f := seal.Seal(nil, b, 1)
			if f != esp.OK {
				t.Fatal(f)
			}
			b = b[28:]
			if r.IntN(30) == 0 {
				b[r.IntN(len(b))] ^= 4
			}
			copies := 1 + r.IntN(20)/19 // a replay
			if r.IntN(8) == 0 {
				from = 1 - from
			}
			for range copies {
				outer[from].Packet.Len = 28 + len(b)
				fast.take(&outer[from], bytes.Clone(b), from == last && r.IntN(10) > 0)
				slow.take(&outer[from], bytes.Clone(b), false)
				last = from
				count++
			}
		}
		fast.merge.flush()
		slow.merge.flush()
		if len(fast.out) != len(slow.out) {
			t.Fatalf("%d packets, want %d", len(fast.out), len(slow.out))
		}
		for i := range fast.out {
			if f, s := &fast.out[i], &slow.out[i]; !bytes.Equal(f.b, s.b) || f.vnet != s.vnet || f.size != s.size || f.n != s.n {
				t.Fatalf("packet %d: %d segments, %x\n%x, want %d, %x\n%x", i, f.n, f.vnet, f.b, s.n, s.vnet, s.b)
			}
		}
		if slow.plain != 0 {
			t.Error("a packet that came alone has no Input")
		}
		plain += fast.plain
		lessPackets += count - len(fast.out)
	}
	if plain < 5000 || lessPackets < 5000 {
		t.Errorf("%d were plain, and %d merged: the test tests nothing", plain, lessPackets)
	}
}
