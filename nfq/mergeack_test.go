package nfq

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
)

// supersedes is the slow twin: whether b says all that a said, both being
// acknowledgements without data.
func supersedes(a, b []byte) bool {
	var p, q packet.Packet
	if packet.Parse(&p, a, len(a)) != packet.OK || packet.Parse(&q, b, len(b)) != packet.OK {
		return false
	}
	for _, p := range []*packet.Packet{&p, &q} {
		if p.Protocol != packet.TCP || p.TCPFlags != packet.ACK || p.Payload != p.Len {
			return false
		}
	}
	if packet.Checksum(b[q.Transport:], packet.PseudoHeader(q.Src, q.Dst, packet.TCP, len(b)-q.Transport)) != 0 {
		return false
	}
	if p.Version == 4 && !p.DontFragment && uint16(p.FragID+1) != uint16(q.FragID) {
		return false
	}
	// All else is equal.
	plain := func(b []byte, p *packet.Packet) []byte {
		b = bytes.Clone(b)
		if p.Version == 4 {
			clear(b[4:6])   // identification
			clear(b[10:12]) // and checksum
		}
		tcp := b[p.Transport:]
		clear(tcp[tcpAck : tcpAck+4])
		clear(tcp[tcpWindow : tcpSum+2])
		return b
	}
	newer := q.Ack - p.Ack
	return newer > 0 && newer < 1<<31 && bytes.Equal(plain(a, &p), plain(b, &q))
}

// TestMergeAcks: of acknowledgements that come together this host hears the
// newest, and every one that says something else; whom they are forwarded to
// hears all.
func TestMergeAcks(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	left, gone := 0, 0
	for range 3000 {
		v6, df := r.IntN(2) == 0, r.IntN(4) > 0
		var pkts [][]byte
		ack, id := uint32(1<<32-3000), uint16(0xfffd)
		for range 2 + r.IntN(6) {
			b := superPacket(t, v6, 0, func(s *packet.Spec) {
				s.TCPFlags, s.Seq, s.DontFragment, s.ID = packet.ACK, 5, df, uint32(id)
				s.Ack, s.Window = ack, uint16(r.IntN(4)*100)
				switch r.IntN(24) {
				case 0:
					s.TCPFlags |= packet.PSH
				case 1:
					s.TCPFlags |= packet.ECE
				case 2:
					s.TCPFlags |= packet.FIN
				case 3:
					s.Seq++
				case 4:
					s.TCPOptions = bytes.Clone(s.TCPOptions)
					s.TCPOptions[11]++
				case 5:
					s.TCPOptions = nil
				case 6:
					s.TOS = 2
				case 7:
					s.Payload, s.Seq = []byte{1}, 100 // nothing that would be merged
				}
			})
			if r.IntN(12) == 0 { // a wrong checksum, or a reserved bit
				at := map[bool]int{false: 20, true: 40}[v6]
				if b[at+tcpSum] ^= 1; r.IntN(2) == 0 {
					b[at+tcpOffset] ^= 1
					packet.SetChecksum(b[at:], addrOf(map[bool]string{false: "10.0.0.1", true: "2001:db8::1"}[v6]),
						addrOf(map[bool]string{false: "10.0.0.2", true: "2001:db8::2"}[v6]), packet.TCP)
				}
			}
			pkts = append(pkts, b)
			ack += uint32(r.IntN(3) * 1400)
			id += uint16(1 + r.IntN(8)/7)
			if r.IntN(10) == 0 {
				ack -= 5000
			}
		}
		compare(t, pkts, merge(t, pkts))
		var want [][]byte
		n := map[int]int{}
		for _, b := range pkts {
			if i := len(want) - 1; i >= 0 && supersedes(want[i], b) {
				want[i] = b
				n[i]++
				gone++
				continue
			}
			n[len(want)]++
			want = append(want, b)
			left++
		}
		out := mergeTo(t, engine.In, pkts)
		if len(out) != len(want) {
			t.Fatalf("%d acknowledgements became %d, want %d", len(pkts), len(out), len(want))
		}
		for i := range out {
			if !bytes.Equal(out[i].b, want[i]) || out[i].n != n[i] {
				t.Fatalf("acknowledgement %d, of %d:\n%x, want, of %d,\n%x", i, out[i].n, out[i].b, n[i], want[i])
			}
		}
	}
	if left < 1000 || gone < 1000 {
		t.Errorf("%d came out and %d did not: the test tests nothing", left, gone)
	}
	// With an open checksum the newest is completed like any other.
	var out []byte
	m := newMerger(func(m *train) {
		h := m.vnetHeader()
		if out != nil || h[0] != 1 || binary.NativeEndian.Uint16(h[8:]) != tcpSum {
			t.Errorf("header %x", h)
		}
		out = bytes.Clone(m.head)
	})
	var u engine.Unsealed
	for _, ack := range []uint32{1, 2, 3} {
		b := superPacket(t, false, 0, func(s *packet.Spec) { s.TCPFlags, s.Ack = packet.ACK, ack })
		b[20+tcpSum]++
		u.Input, u.SumOpen, u.Data = engine.Input{SA: "peer", Arriving: true}, true, nil
		if f := packet.Parse(&u.Input.Packet, b, len(b)); f != packet.OK {
			t.Fatal(f)
		}
		m.add(&u)
	}
	m.flush()
	if len(out) == 0 || binary.BigEndian.Uint32(out[20+tcpAck:]) != 3 {
		t.Errorf("came out: %x", out)
	}
}
