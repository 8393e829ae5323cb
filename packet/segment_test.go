package packet

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// Segments put together again are the packet they were cut from, and each is
// whole by itself.
func TestSegmenter(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 500 {
		spec := Spec{
			Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"), Protocol: TCP, ID: 0xfffe,
			SrcPort: 1, DstPort: 2, Seq: 0xffffff00, Ack: 7, TCPFlags: ACK | PSH | FIN | CWR, TCPOptions: make([]byte, 4*r.IntN(4)),
			Payload: make([]byte, r.IntN(65000)),
		}
		if r.IntN(2) == 0 {
			spec.Src, spec.Dst = netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
		}
		for i := range spec.TCPOptions {
			spec.TCPOptions[i] = optionNOP
		}
		for i := range spec.Payload {
			spec.Payload[i] = byte(r.Uint32())
		}
		b, err := Build(spec)
		if err != nil {
			t.Fatal(err)
		}
		var p, q Packet
		if f := Parse(&p, b, len(b)); f != OK {
			t.Fatal(f)
		}
		mtu := 600 + r.IntN(9000)
		var s Segmenter
		if err := s.Reset(&p, mtu); err != nil {
			t.Fatal(err)
		}
		var got []byte
		count := s.Count()
		for i := range count {
			seg, ok := s.Next(nil)
			if !ok || len(seg) > mtu {
				t.Fatalf("segment %d of %d: %v, %d bytes at an MTU of %d", i, count, ok, len(seg), mtu)
			}
			if f := Parse(&q, seg, len(seg)); f != OK {
				t.Fatal(f)
			}
			if q.Version == 4 && Checksum(seg[:q.Transport], 0) != 0 || Checksum(seg[q.Transport:], PseudoHeader(q.Src, q.Dst, TCP, len(seg)-q.Transport)) != 0 {
				t.Fatal("a segment's checksum is wrong")
			}
			if q.Version == 4 && q.FragID != uint32(0xfffe+i)&0xffff {
				t.Fatalf("segment %d has identification %d", i, q.FragID)
			}
			want := uint8(ACK)
			if i == 0 {
				want |= CWR
			}
			if i == count-1 {
				want |= PSH | FIN
			}
			if q.TCPFlags != want || q.Seq != p.Seq+uint32(len(got)) {
				t.Fatalf("segment %d of %d: flags %#x, want %#x; sequence number %d", i, count, q.TCPFlags, want, q.Seq)
			}
			got = append(got, seg[q.Payload:]...)
		}
		if _, ok := s.Next(nil); ok {
			t.Fatal("more segments than counted")
		}
		if !bytes.Equal(got, spec.Payload) {
			t.Fatal("the data came out different")
		}
	}
}

func TestSegmenterRefuses(t *testing.T) {
	udp, _ := Build(Spec{Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"), Protocol: UDP})
	tcp, _ := Build(Spec{Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"), Protocol: TCP, TCPFlags: ACK, Payload: make([]byte, 100)})
	for _, row := range []struct {
		b   []byte
		mtu int
	}{{udp, 1500}, {tcp, 40}, {tcp, 0}} {
		var p Packet
		var s Segmenter
		Parse(&p, row.b, len(row.b))
		if s.Reset(&p, row.mtu) == nil {
			t.Errorf("%d bytes at an MTU of %d are segmented", len(row.b), row.mtu)
		}
	}
	var p Packet
	var s Segmenter
	Parse(&p, tcp[:60], len(tcp)) // a cut capture
	if s.Reset(&p, 1500) == nil {
		t.Error("a packet that is not all there is segmented")
	}
}

func TestSegmenterNoAllocs(t *testing.T) {
	b, _ := Build(Spec{Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"), Protocol: TCP, TCPFlags: ACK, Payload: make([]byte, 60000)})
	var p Packet
	Parse(&p, b, len(b))
	var s Segmenter
	out := make([]byte, 0, 2000)
	if n := testing.AllocsPerRun(50, func() {
		_ = s.Reset(&p, 1400)
		for ok := true; ok; {
			_, ok = s.Next(out)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestClampMSS(t *testing.T) {
	for _, row := range []struct {
		options []byte
		most    uint16
		changed bool
		want    []byte
		mss     uint16 // that is offered; 0: the options cannot be read
	}{
		{[]byte{2, 4, 5, 180}, 1300, true, []byte{2, 4, 5, 20}, 1460},
		{[]byte{2, 4, 5, 20}, 1300, false, []byte{2, 4, 5, 20}, 1300},
		{[]byte{1, 2, 4, 5, 180, 1, 1, 1}, 1300, true, []byte{1, 2, 4, 5, 20, 1, 1, 1}, 1460},
		{[]byte{1, 1, 1, 2, 4, 255, 255, 0}, 536, true, []byte{1, 1, 1, 2, 4, 2, 24, 0}, 0xffff},
		{[]byte{3, 3, 7, 1, 2, 4, 5, 180}, 1300, true, []byte{3, 3, 7, 1, 2, 4, 5, 20}, 1460},
		{[]byte{0, 2, 4, 5}, 1300, false, []byte{0, 2, 4, 5}, defaultMSS6},
		{[]byte{3, 0, 2, 4}, 1300, false, []byte{3, 0, 2, 4}, 0},
		{[]byte{2, 9, 5, 180}, 1300, false, []byte{2, 9, 5, 180}, 0},
	} {
		for _, flags := range []uint8{SYN, SYN | ACK, ACK} {
			b, err := Build(Spec{Src: netip.MustParseAddr("fd00::1"), Dst: netip.MustParseAddr("fd00::2"), Protocol: TCP, TCPFlags: flags, TCPOptions: row.options})
			if err != nil {
				t.Fatal(err)
			}
			var p Packet
			if f := Parse(&p, b, len(b)); f != OK {
				t.Fatal(f)
			}
			if mss, ok := MSS(&p); ok != (row.mss != 0 && flags&SYN != 0) || ok && mss != row.mss {
				t.Errorf("%v, flags %#x: offers %d, %v", row.options, flags, mss, ok)
			}
			changed := ClampMSS(&p, row.most, false)
			if changed != (row.changed && flags&SYN != 0) {
				t.Errorf("%v, flags %#x: changed %v", row.options, flags, changed)
			}
			if changed && !bytes.Equal(b[60:], row.want) {
				t.Errorf("%v: got %v, want %v", row.options, b[60:], row.want)
			}
			if Checksum(b[40:], PseudoHeader(p.Src, p.Dst, TCP, len(b)-40)) != 0 {
				t.Errorf("%v: the checksum is wrong", row.options)
			}
		}
	}
}
