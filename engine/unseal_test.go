package engine

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"

	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
)

// encapsulate puts the ESP of both hosts in UDP, for some through a NAT whose
// addresses are known or not.
func (h *hosts) encapsulate(nat ...func(*esp.Config)) *hosts {
	for _, e := range []*Engine{h.a, h.b} {
		for sa := range e.options.SAD.All() {
			if len(nat) > 0 && sa.Direction() == esp.In {
				c := sa.Config()
				c.EncryptionKey = esp.NewKey(bytes.Repeat([]byte{7}, c.Suite.Encryption.KeyMaterial()))
				nat[0](&c)
				other, err := esp.New(c)
				if err != nil {
					h.Fatal(err)
				}
				e.options.SAD.Remove(sa)
				if err := e.options.SAD.Insert(other); err != nil {
					h.Fatal(err)
				}
				sa = other
			}
			src, dst, _ := sa.Endpoints()
			sa.Move(src, dst, esp.Encap{SrcPort: 4500, DstPort: 4500})
		}
	}
	return h
}

// bySocket is arrive for a packet that a UDP socket has received: in two steps.
func (h *hosts) bySocket(b []byte) (Result, []byte) {
	h.Helper()
	var whole packet.Packet
	if f := packet.Parse(&whole, b, len(b)); f != packet.OK {
		h.Fatal(f)
	}
	in := Input{Arriving: true, Now: second}
	in.Packet = packet.Packet{Version: whole.Version, Src: whole.Src, Dst: whole.Dst, Protocol: packet.UDP, HasPorts: true,
		SrcPort: whole.SrcPort, DstPort: whole.DstPort, TOS: whole.TOS, TTL: whole.TTL, Len: whole.Len, DontFragment: true}
	return h.inTwoSteps(&in, b[whole.Payload:whole.Len])
}

// inTwoSteps opens an ESP packet, and judges what it held.
func (h *hosts) inTwoSteps(in *Input, b []byte) (Result, []byte) {
	h.Helper()
	u := &h.u
	var out Output
	h.last.Packet.Len = in.Packet.Len
	u.Again = reflect.DeepEqual(h.last, *in)
	h.last = *in
	serial := u.Serial
	r := h.b.Unseal(in, b, u)
	if r.Verdict != Protect {
		if u.Plain != nil {
			h.Error("a packet that is none has a header")
		}
		return r, nil
	}
	if u.Plain != nil {
		if h.plain++; u.Serial != serial {
			h.Error("another packet was read")
		}
		u.Make()
	}
	clear := u.Whole()
	if len(clear) != u.Input.Packet.Len {
		h.Errorf("%d bytes in two pieces, the packet says %d", len(clear), u.Input.Packet.Len)
	}
	if r = h.b.Process(&u.Input, &out); r.Verdict != Protect {
		clear = nil
	}
	return r, clear
}

// Unseal and Process give what Process alone gives for the same packet in one
// piece, whatever has become of it on the way.
func TestUnsealTwin(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for i, nat := range []func(*esp.Config){
		func(*esp.Config) {}, func(*esp.Config) {},
		func(c *esp.Config) { c.ThroughNAT = true },
		func(c *esp.Config) {
			c.OriginalSrc, c.OriginalDst = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.77")
		},
	} {
		mode := esp.Transport
		if i == 1 {
			mode = esp.Tunnel
		}
		one, two := newHosts(t, mode).encapsulate(nat), newHosts(t, mode).encapsulate(nat)
		var wire [][]byte
		for _, p := range []Input{
			one.packet("out tcp 10.0.0.5:40000 -> 10.0.0.7:445"),
			one.packet("out tcp 10.0.0.5:40000 -> 10.0.0.7:445", flags(packet.ACK), data(50000)),
			one.packet("out tcp 10.0.0.5:40001 -> 10.0.0.7:445", flags(packet.ACK|packet.PSH), data(10)),
			one.packet("out udp 10.0.0.5:40000 -> 10.0.0.7:53", data(300)),
			one.packet("out udp 10.0.0.5:40000 -> 10.0.0.7:53", data(0)),
			one.packet("out icmp echo-request 10.0.0.5 -> 10.0.0.7", data(56)),
		} {
			p.Packet.Bytes[6] |= 0x40 // DF, as nearly all packets have it
			binary.BigEndian.PutUint16(p.Packet.Bytes[10:], 0)
			binary.BigEndian.PutUint16(p.Packet.Bytes[10:], packet.Checksum(p.Packet.Bytes[:20], 0))
			if f := packet.Parse(&p.Packet, p.Packet.Bytes, len(p.Packet.Bytes)); f != packet.OK {
				t.Fatal(f)
			}
			wire = append(wire, one.wire(&p, Protect)...)
		}
		met := map[Reason]int{}
		for range 3 { // the second time they are replays
			for i := range wire {
				b := bytes.Clone(wire[i])
				udp := b[20:]
				switch rnd.IntN(16) {
				case 0:
					b[20+8+rnd.IntN(len(b)-28)] ^= 1 << rnd.IntN(8)
				case 1: // congestion on the way
					b[1] |= 3
				case 2: // another sender
					b[15] ^= 6
				case 3: // IKE
					copy(udp[8:], []byte{0, 0, 0, 0})
				case 4:
					b = b[:20+8+rnd.IntN(40)]
					binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
					binary.BigEndian.PutUint16(b[24:], uint16(len(b)-20))
				case 5:
					b = append(b[:28], 0xff)
					binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
					binary.BigEndian.PutUint16(b[24:], uint16(len(b)-20))
				}
				binary.BigEndian.PutUint16(b[10:], 0)
				binary.BigEndian.PutUint16(b[10:], packet.Checksum(b[:20], 0))
				r1, c1 := one.arrive(bytes.Clone(b))
				r2, c2 := two.bySocket(b)
				if r1.Verdict != r2.Verdict || r1.Reason != r2.Reason || r1.Rule != r2.Rule || r1.NewFlow != r2.NewFlow || r1.Established != r2.Established {
					t.Fatalf("%v: packet %d: %+v, by a socket %+v", mode, i, r1, r2)
				}
				if mode == esp.Transport && len(c1) > 20 && len(c2) > 20 {
					// The socket does not tell the identification.
					copy(c1[4:6], c2[4:6])
					copy(c1[10:12], c2[10:12])
					if packet.Checksum(c2[:20], 0) != 0 {
						t.Errorf("IP checksum %x", c2[:20])
					}
				}
				if !bytes.Equal(c1, c2) {
					t.Fatalf("%v: packet %d:\n%x, by a socket\n%x", mode, i, c1, c2)
				}
				met[r1.Reason]++
			}
		}
		if open := i == 2; open != (two.plain > 5) {
			t.Errorf("%v: %d packets were read because of others; NAT with addresses that are not known: %v", mode, two.plain, open)
		}
		s1, s2 := one.b.Stats(), two.b.Stats()
		if s1.Reasons != s2.Reasons || s1.Rules[0] != s2.Rules[0] {
			t.Errorf("%v: counters %+v, by a socket %+v", mode, s1, s2)
		}
		for _, r := range []Reason{ReasonFlow, ReasonRule, ReasonIKE, ReasonKeepalive, reasonOfESP(esp.Replay), reasonOfESP(esp.Unauthentic), reasonOfESP(esp.Short)} {
			if met[r] == 0 {
				t.Errorf("%v: never met %v", mode, r)
			}
		}
		if mode == esp.Transport && met[ReasonWrongSA] == 0 {
			t.Error("never met another sender")
		}
	}
}

// TestUnsealNative is TestUnsealTwin for ESP that is not in UDP: nothing of the
// IP header is lost on the way.
func TestUnsealNative(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	for _, mode := range []esp.Mode{esp.Transport, esp.Tunnel} {
		one, two := newHosts(t, mode), newHosts(t, mode)
		var wire [][]byte
		for i, p := range []Input{
			one.packet("out tcp 10.0.0.5:40000 -> 10.0.0.7:445"),
			one.packet("out tcp 10.0.0.5:40000 -> 10.0.0.7:445", flags(packet.ACK), data(50000)),
			one.packet("out udp 10.0.0.5:40000 -> 10.0.0.7:53", data(300)),
			one.packet("out icmp echo-request 10.0.0.5 -> 10.0.0.7", data(56)),
		} {
			p.Packet.Bytes[6] |= byte(i&1) << 6 // DF, or not
			p.Packet.Bytes[8] -= byte(i)
			remake(p.Packet.Bytes)
			if f := packet.Parse(&p.Packet, p.Packet.Bytes, len(p.Packet.Bytes)); f != packet.OK {
				t.Fatal(f)
			}
			wire = append(wire, one.wire(&p, Protect)...)
		}
		met := map[Reason]int{}
		for range 3 { // the second time they are replays
			for i := range wire {
				b := bytes.Clone(wire[i])
				switch rnd.IntN(8) {
				case 0:
					b[20+rnd.IntN(len(b)-20)] ^= 1 << rnd.IntN(8)
				case 1: // congestion on the way
					b[1] |= 3
				case 2: // another sender
					b[15] ^= 6
				case 3:
					b = b[:20+rnd.IntN(40)]
				}
				binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
				remake(b)
				in := Input{Arriving: true, Now: second}
				if f := packet.Parse(&in.Packet, b, len(b)); f != packet.OK {
					continue
				}
				r1, c1 := one.arrive(bytes.Clone(b))
				r2, c2 := two.inTwoSteps(&in, b[20:])
				if r1.Verdict != r2.Verdict || r1.Reason != r2.Reason || r1.Rule != r2.Rule || r1.NewFlow != r2.NewFlow {
					t.Fatalf("%v: packet %d: %+v, in two steps %+v", mode, i, r1, r2)
				}
				if !bytes.Equal(c1, c2) {
					t.Fatalf("%v: packet %d:\n%x, in two steps\n%x", mode, i, c1, c2)
				}
				met[r1.Reason]++
			}
		}
		if s1, s2 := one.b.Stats(), two.b.Stats(); s1.Reasons != s2.Reasons || s1.Rules[0] != s2.Rules[0] {
			t.Errorf("%v: counters %+v, in two steps %+v", mode, s1, s2)
		}
		for _, r := range []Reason{ReasonFlow, ReasonRule, reasonOfESP(esp.Replay), reasonOfESP(esp.Unauthentic)} {
			if met[r] == 0 {
				t.Errorf("%v: never met %v", mode, r)
			}
		}
	}
}

// remake makes the checksum of an IPv4 header right.
func remake(b []byte) {
	binary.BigEndian.PutUint16(b[10:], 0)
	binary.BigEndian.PutUint16(b[10:], packet.Checksum(b[:20], 0))
}

// Unseal allocates nothing.
func TestUnsealNoAllocs(t *testing.T) {
	h := newHosts(t, esp.Transport).encapsulate()
	syn := h.packet("out tcp 10.0.0.5:40000 -> 10.0.0.7:445")
	for _, b := range h.wire(&syn, Protect) {
		h.bySocket(b)
	}
	in := h.packet("out tcp 10.0.0.5:40000 -> 10.0.0.7:445", flags(packet.ACK), data(30000))
	var out, admitted Output
	var u Unsealed
	received := Input{Arriving: true, Now: second}
	received.Packet = packet.Packet{Version: 4, Src: in.Packet.Src, Dst: in.Packet.Dst, Protocol: packet.UDP, TTL: 64}
	in.UDPSocket = true
	got := testing.AllocsPerRun(100, func() {
		if r := h.a.Process(&in, &out); r.Verdict != Protect || len(out.Send) < 20 || out.Payload != 28 {
			t.Fatalf("%+v, %d datagrams, payload at %d", r, len(out.Send), out.Payload)
		}
		for _, b := range out.Send {
			if r := h.b.Unseal(&received, b[out.Payload:], &u); r.Verdict != Protect {
				t.Fatal(r)
			}
			if r := h.b.Process(&u.Input, &admitted); r.Verdict != Protect {
				t.Fatal(r)
			}
		}
	})
	if got != 0 {
		t.Errorf("%v allocations", got)
	}
}

// Datagrams stay what they are from one Turn to the next but one, whatever is
// sealed meanwhile.
func TestOutputTurn(t *testing.T) {
	h := newHosts(t, esp.Transport).encapsulate()
	syn := h.packet("out tcp 10.0.0.5:40000 -> 10.0.0.7:445")
	h.wire(&syn, Protect)
	in := h.packet("out tcp 10.0.0.5:40000 -> 10.0.0.7:445", flags(packet.ACK), data(60000))
	in.UDPSocket = true
	var out Output
	var before, copies [][]byte
	for range 6 {
		if r := h.a.Process(&in, &out); r.Verdict != Protect || len(out.Send) < 40 {
			t.Fatalf("%+v, %d datagrams", r, len(out.Send))
		}
		out.Keep()
		for i, b := range before {
			if !bytes.Equal(b, copies[i]) {
				t.Fatalf("datagram %d has changed", i)
			}
		}
		before, copies = append([][]byte(nil), out.Send...), nil
		for _, b := range before {
			copies = append(copies, bytes.Clone(b))
		}
		out.Turn()
	}
}
