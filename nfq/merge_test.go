package nfq

import (
	"bytes"
	"encoding/binary"
	"testing"
	"unsafe"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
	"golang.org/x/sys/unix"
)

// merged is what came out of a merger: the packet in one piece, and the header
// in front of it.
type merged struct {
	b    []byte
	vnet [sizeofVnetHeader]byte
	size int
	n    int
}

// merge sends packets through a merger, none of which may get lost.
func merge(t testing.TB, pkts [][]byte) []merged {
	t.Helper()
	return mergeTo(t, engine.Forward, pkts)
}

// mergeTo sends packets of a direction through a merger.
func mergeTo(t testing.TB, dir engine.Direction, pkts [][]byte) (out []merged) {
	t.Helper()
	m := newMerger(func(m *train) {
		var b []byte
		for _, v := range m.iov[1:] {
			b = append(b, unsafe.Slice(v.Base, v.Len)...)
		}
		if len(b) != m.in.Packet.Len || len(b) != m.total {
			t.Errorf("%d bytes, and the packet says %d, the merger %d", len(b), m.in.Packet.Len, m.total)
		}
		out = append(out, merged{b, m.vnetHeader(), m.size, m.n + m.past})
	})
	var u engine.Unsealed
	for _, b := range pkts {
		u.Input = engine.Input{SA: "peer", Arriving: true, Dir: dir}
		p := &u.Input.Packet
		if f := packet.Parse(p, b, len(b)); f != packet.OK {
			continue
		}
		u.Data = nil
		if p.Protocol == packet.TCP && !p.Fragment {
			u.Data = p.Bytes[p.Payload:p.Len]
			p.Bytes = p.Bytes[:p.Payload]
		}
		m.add(&u)
	}
	m.flush()
	return out
}

// split is the slow twin: it cuts what was merged up again, as the kernel
// would.
func split(t testing.TB, m merged) (out [][]byte) {
	t.Helper()
	if m.n == 1 {
		if m.vnet != [sizeofVnetHeader]byte{} {
			t.Errorf("one packet, and something is to be done to it: %x", m.vnet)
		}
		return [][]byte{m.b}
	}
	var p packet.Packet
	if f := packet.Parse(&p, m.b, len(m.b)); f != packet.OK {
		t.Fatalf("merged: %v: %x", f, m.b[:min(len(m.b), 100)])
	}
	want := [sizeofVnetHeader]byte{1, map[uint8]byte{4: 1, 6: 4}[p.Version]}
	for i, v := range []int{p.Payload, m.size, p.Transport, 16} {
		binary.NativeEndian.PutUint16(want[2+2*i:], uint16(v))
	}
	if m.vnet != want {
		t.Errorf("header %x, want %x", m.vnet, want)
	}
	tcp := m.b[p.Transport:]
	if sum := binary.BigEndian.Uint16(tcp[tcpSum:]); sum != ^packet.Checksum(nil, packet.PseudoHeader(p.Src, p.Dst, packet.TCP, len(tcp))) {
		t.Errorf("checksum %04x is not that of the pseudo-header", sum)
	}
	var s packet.Segmenter
	if err := s.Reset(&p, p.Payload+m.size); err != nil {
		t.Fatal(err)
	}
	for {
		b, more := s.Next(nil)
		if !more {
			return out
		}
		out = append(out, b)
	}
}

// normal hides in a packet what merging may change: with DF the identification.
func normal(b []byte) []byte {
	b = bytes.Clone(b)
	if b[0]>>4 == 4 && b[6]&0x40 != 0 {
		binary.BigEndian.PutUint16(b[4:], 0)
		binary.BigEndian.PutUint16(b[10:], 0)
		binary.BigEndian.PutUint16(b[10:], packet.Checksum(b[:int(b[0]&15)*4], 0))
	}
	return b
}

// compare holds what came out, cut up again, against what went in.
func compare(t testing.TB, in [][]byte, out []merged) {
	t.Helper()
	var again [][]byte
	for _, m := range out {
		again = append(again, split(t, m)...)
	}
	i := 0
	for _, b := range in {
		var p packet.Packet
		if packet.Parse(&p, b, len(b)) != packet.OK {
			continue // was not put in
		}
		if i >= len(again) || !bytes.Equal(normal(again[i]), normal(b[:p.Len])) {
			t.Fatalf("packet %d of %d came out another:\n%x, went in:\n%x", i, len(again), again[min(i, len(again)-1)], b)
		}
		i++
	}
	if i != len(again) {
		t.Fatalf("%d packets became %d", i, len(again))
	}
}

// superPacket is a TCP packet of n bytes of data.
func superPacket(t testing.TB, v6 bool, n int, change ...func(*packet.Spec)) []byte {
	s := packet.Spec{Src: addrOf("10.0.0.1"), Dst: addrOf("10.0.0.2"), Protocol: packet.TCP, SrcPort: 40000, DstPort: 445,
		TCPFlags: packet.ACK | packet.PSH, Seq: 1<<32 - 3000, Ack: 77, Window: 512, DontFragment: true, ID: 0xfffe,
		TCPOptions: []byte{1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 8}, Payload: make([]byte, n)}
	if v6 {
		s.Src, s.Dst = addrOf("2001:db8::1"), addrOf("2001:db8::2")
	}
	for i := range s.Payload {
		s.Payload[i] = byte(i * i >> 3)
	}
	for _, c := range change {
		c(&s)
	}
	b, err := packet.Build(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// segments cuts a super-packet up to packets of at most mtu bytes.
func segments(t testing.TB, b []byte, mtu int) (out [][]byte) {
	var p packet.Packet
	if f := packet.Parse(&p, b, len(b)); f != packet.OK {
		t.Fatal(f)
	}
	var s packet.Segmenter
	if err := s.Reset(&p, mtu); err != nil {
		t.Fatal(err)
	}
	for {
		b, more := s.Next(nil)
		if !more {
			return out
		}
		out = append(out, b)
	}
}

// What was cut up is merged to what it was.
func TestMergeWhole(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, n := range []int{1, 1388, 1389, 5000, 64000} {
			for _, flags := range []uint8{packet.ACK, packet.ACK | packet.PSH, packet.ACK | packet.FIN, packet.ACK | packet.FIN | packet.PSH} {
				for _, df := range []bool{true, false} {
					b := superPacket(t, v6, n, func(s *packet.Spec) { s.TCPFlags, s.DontFragment = flags, df })
					out := merge(t, segments(t, b, 1440))
					if len(out) != 1 {
						t.Fatalf("%d bytes became %d packets", n, len(out))
					}
					var p packet.Packet
					packet.Parse(&p, out[0].b, len(out[0].b))
					packet.SetChecksum(p.Bytes[p.Transport:], p.Src, p.Dst, packet.TCP)
					if !bytes.Equal(out[0].b, b) {
						t.Errorf("%d bytes, flags %#x:\n%x, want\n%x", n, flags, out[0].b[:60], b[:60])
					}
				}
			}
		}
	}
}

// What differs is not merged, and passes as it is.
func TestMergeApart(t *testing.T) {
	tcp := func(at int, xor byte) func(b []byte, ip int) {
		return func(b []byte, ip int) {
			b[ip+at] ^= xor
			var p packet.Packet
			if packet.Parse(&p, b, len(b)) == packet.OK {
				packet.SetChecksum(b[ip:], p.Src, p.Dst, packet.TCP)
			}
		}
	}
	ip := func(at4, at6 int, xor byte) func(b []byte, ip int) {
		return func(b []byte, ip int) {
			if ip == 40 {
				b[at6] ^= xor
				return
			}
			b[at4] ^= xor
			binary.BigEndian.PutUint16(b[10:], 0)
			binary.BigEndian.PutUint16(b[10:], packet.Checksum(b[:ip], 0))
		}
	}
	for _, tc := range []struct {
		name   string
		want   int // packets from three segments of which the second is changed
		change func(b []byte, ip int)
	}{
		{"nothing", 1, func([]byte, int) {}},
		{"source port", 3, tcp(1, 1)},
		{"destination port", 3, tcp(3, 1)},
		{"sequence number", 3, tcp(7, 1)},
		{"acknowledgement", 3, tcp(11, 1)},
		{"window", 3, tcp(15, 1)},
		{"urgent pointer", 3, tcp(19, 1)},
		{"time stamp", 3, tcp(27, 1)},
		{"ECE", 3, tcp(13, packet.ECE)},
		{"CWR", 3, tcp(13, packet.CWR)},
		{"URG", 3, tcp(13, packet.URG)},
		{"PSH ends a packet", 2, tcp(13, packet.PSH)},
		{"FIN ends a packet", 2, tcp(13, packet.FIN)},
		{"wrong checksum", 3, func(b []byte, ip int) { b[ip+16] ^= 1 }},
		{"other data under the checksum", 3, func(b []byte, ip int) { b[len(b)-1] ^= 1 }},
		{"type of service", 3, ip(1, 1, 0x10)},
		{"time to live", 3, ip(8, 7, 1)},
	} {
		for _, v6 := range []bool{false, true} {
			segs := segments(t, superPacket(t, v6, 3*1388, func(s *packet.Spec) { s.TCPFlags = packet.ACK }), 1440+20*map[bool]int{true: 1}[v6])
			if len(segs) != 3 {
				t.Fatalf("%d segments", len(segs))
			}
			tc.change(segs[1], map[bool]int{false: 20, true: 40}[v6])
			out := merge(t, segs)
			if len(out) != tc.want {
				t.Errorf("%s (IPv6 %v): %d packets, want %d", tc.name, v6, len(out), tc.want)
			}
			compare(t, segs, out)
		}
	}
	// Without DF the identification counts.
	for df, want := range map[bool]int{false: 3, true: 1} {
		segs := segments(t, superPacket(t, false, 3*1388, func(s *packet.Spec) { s.DontFragment = df }), 1440)
		ip(5, 0, 4)(segs[1], 20)
		if out := merge(t, segs); len(out) != want {
			t.Errorf("another identification, DF %v: %d packets, want %d", df, len(out), want)
		}
	}
	// A shorter one ends a packet, a longer one begins another.
	b := superPacket(t, false, 4000)
	short := segments(t, b, 1040)
	mixed := append(segments(t, superPacket(t, false, 600, func(s *packet.Spec) { s.Seq -= 600; s.TCPFlags = packet.ACK }), 1440), short...)
	if out := merge(t, mixed); len(out) != 2 {
		t.Errorf("a short one and %d longer ones: %d packets, want 2", len(short), len(out))
	}
}

// More than fits one packet becomes two, and none is lost.
func TestMergeFull(t *testing.T) {
	var segs [][]byte
	for i := range uint32(3) {
		segs = append(segs, segments(t, superPacket(t, false, 40000, func(s *packet.Spec) {
			s.Seq += i * 40000
			s.TCPFlags = packet.ACK
		}), 1052)...)
	}
	out := merge(t, segs)
	compare(t, segs, out)
	if len(out) != 2 {
		t.Errorf("120000 bytes became %d packets, want 2", len(out))
	}
	var few [][]byte
	for i := range uint32(300) {
		few = append(few, superPacket(t, true, 10, func(s *packet.Spec) { s.Seq += i * 10; s.TCPFlags = packet.ACK }))
	}
	out = merge(t, few)
	compare(t, few, out)
	if len(out) != 3 {
		t.Errorf("300 small ones became %d packets, want 3", len(out))
	}
}

// FuzzMerge: whatever comes, what is merged can be cut up again to what it was.
func FuzzMerge(f *testing.F) {
	f.Add([]byte{}, false)
	f.Add([]byte{0, 0, 13, 8, 33, 1, 0, 0, 7, 1}, true)
	f.Fuzz(func(t *testing.T, changes []byte, v6 bool) {
		pkts := append(segments(t, superPacket(t, v6, 4*500+100), 592), segments(t, superPacket(t, v6, 3*500, func(s *packet.Spec) {
			s.Seq += 2100
			s.TCPFlags = packet.ACK
		}), 592)...)
		for len(changes) >= 3 {
			b := pkts[int(changes[0])%len(pkts)]
			b[int(changes[1])%min(len(b), 100)] ^= changes[2] &^ 1
			var p packet.Packet
			if changes[2]&1 != 0 && packet.Parse(&p, b, len(b)) == packet.OK && p.Protocol == packet.TCP {
				packet.SetChecksum(p.Bytes[p.Transport:], p.Src, p.Dst, packet.TCP)
				if p.Version == 4 {
					binary.BigEndian.PutUint16(b[10:], 0)
					binary.BigEndian.PutUint16(b[10:], packet.Checksum(b[:p.Transport], 0))
				}
			}
			changes = changes[3:]
		}
		compare(t, pkts, merge(t, pkts))
	})
}

// What the sender puts in one message differs in nothing that a message says
// once.
func TestSenderRuns(t *testing.T) {
	build := func(n int, change ...func(*packet.Spec)) []byte {
		s := packet.Spec{Src: addrOf("10.0.0.1"), Dst: addrOf("10.0.0.2"), Protocol: packet.UDP, SrcPort: 4500, DstPort: 4500, DontFragment: true, Payload: make([]byte, n)}
		for _, c := range change {
			c(&s)
		}
		b, err := packet.Build(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	six := func(s *packet.Spec) { s.Src, s.Dst = addrOf("2001:db8::1"), addrOf("2001:db8::2") }
	with := func(cs ...func(*packet.Spec)) []func(*packet.Spec) { return cs }
	for _, tc := range []struct {
		name string
		pkts [][]byte
		want []int // datagrams in each message, a negative number for the raw socket
	}{
		{"equal ones and a short one", [][]byte{build(100), build(100), build(100), build(60)}, []int{4}},
		{"after a short one", [][]byte{build(100), build(60), build(60)}, []int{2, 1}},
		{"a longer one", [][]byte{build(60), build(100)}, []int{1, 1}},
		{"another peer", [][]byte{build(60), build(60, func(s *packet.Spec) { s.Dst = addrOf("10.0.0.3") })}, []int{1, 1}},
		{"another port", [][]byte{build(60), build(60, func(s *packet.Spec) { s.DstPort = 1 })}, []int{1, 1}},
		{"another class", [][]byte{build(60), build(60, func(s *packet.Spec) { s.TOS = 2 })}, []int{1, 1}},
		{"another TTL", [][]byte{build(60), build(60, func(s *packet.Spec) { s.TTL = 9 })}, []int{1, 1}},
		{"another identification", [][]byte{build(60), build(60, func(s *packet.Spec) { s.ID = 9 })}, []int{2}},
		{"IPv6", [][]byte{build(60, six), build(60, six), build(50, six)}, []int{3}},
		{"IPv6, another class", [][]byte{build(60, six), build(60, with(six, func(s *packet.Spec) { s.TOS = 2 })...)}, []int{1, 1}},
	} {
		s := newSender(&worker{fw: &Firewall{inject: &injector{raw4: 3, raw6: 4, port4: &udpSocket{waiter: waiter{fd: 5}}, port6: &udpSocket{waiter: waiter{fd: 6}}}}, stats: new(queueStats)})
		s.w.fw.inject.port4.bound.Store(true)
		s.w.fw.inject.port6.bound.Store(true)
		payload := ipv4UDP
		if tc.pkts[0][0]>>4 == 6 {
			payload = ipv6UDP
		}
		s.add(tc.pkts, payload, 0)
		var got []int
		at := 0
		for i := range s.n {
			m := &s.msgs[i].hdr
			got = append(got, int(m.Iovlen))
			for range m.Iovlen {
				if v := s.iovs[at]; v.Base != &tc.pkts[at][payload] || int(v.Len) != len(tc.pkts[at])-payload {
					t.Errorf("%s: datagram %d is another", tc.name, at)
				}
				at++
			}
			if size := segmentSize(t, m); (m.Iovlen > 1) != (size > 0) || size > 0 && size != len(tc.pkts[at-int(m.Iovlen)])-payload {
				t.Errorf("%s: message %d of %d datagrams has segment size %d", tc.name, i, m.Iovlen, size)
			}
		}
		if len(got) != len(tc.want) || at != len(tc.pkts) {
			t.Errorf("%s: messages of %v datagrams, want %v", tc.name, got, tc.want)
			continue
		}
		for i := range got {
			if got[i] != tc.want[i] {
				t.Errorf("%s: messages of %v datagrams, want %v", tc.name, got, tc.want)
			}
		}
	}
}

// segmentSize reads UDP_SEGMENT out of a message; 0 without it.
func segmentSize(t *testing.T, m *unix.Msghdr) int {
	t.Helper()
	msgs, err := unix.ParseSocketControlMessage(unsafe.Slice(m.Control, m.Controllen))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range msgs {
		if c.Header.Level == unix.IPPROTO_UDP && c.Header.Type == udpSegment {
			return int(binary.NativeEndian.Uint16(c.Data))
		}
	}
	return 0
}

// TestMergeOpenSums has segments merged whose checksums are not to be looked
// at: what comes out says that they are to be filled in, one segment or many.
func TestMergeOpenSums(t *testing.T) {
	var out []merged
	m := newMerger(func(m *train) {
		var b []byte
		for _, v := range m.iov[1:] {
			b = append(b, unsafe.Slice(v.Base, v.Len)...)
		}
		out = append(out, merged{b, m.vnetHeader(), m.size, m.n})
	})
	var u engine.Unsealed
	var want [][]byte
	for i, open := range []bool{true, true, true, false, true} { // the fourth has a sum of its own
		b, err := packet.Build(packet.Spec{Src: addrOf("10.0.0.1"), Dst: addrOf("10.0.0.2"), Protocol: packet.TCP, TCPFlags: packet.ACK,
			SrcPort: 1000, DstPort: 80, Seq: uint32(i * 100), Payload: bytes.Repeat([]byte{byte(i)}, 100)})
		if err != nil {
			t.Fatal(err)
		}
		b[6] |= 0x40 // DF
		binary.BigEndian.PutUint16(b[10:], 0)
		binary.BigEndian.PutUint16(b[10:], packet.Checksum(b[:20], 0))
		want = append(want, bytes.Clone(b))
		if open {
			b[20+tcpSum] ^= 0x55
		}
		u.Input, u.SumOpen = engine.Input{SA: "peer", Arriving: true}, open
		p := &u.Input.Packet
		if f := packet.Parse(p, b, len(b)); f != packet.OK {
			t.Fatal(f)
		}
		u.Data, p.Bytes = p.Bytes[p.Payload:p.Len], p.Bytes[:p.Payload]
		m.add(&u)
	}
	m.flush()
	if len(out) != 3 || out[0].n != 3 || out[1].n != 1 || out[2].n != 1 {
		t.Fatalf("%d packets", len(out))
	}
	compare(t, want[:3], out[:1])
	compare(t, want[3:4], out[1:2])
	// A single one: the sum of the pseudo-header, and where to go on from.
	last := out[2]
	var h [sizeofVnetHeader]byte
	h[0] = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
	binary.NativeEndian.PutUint16(h[6:], 20)
	binary.NativeEndian.PutUint16(h[8:], tcpSum)
	if last.vnet != h {
		t.Errorf("header %x, want %x", last.vnet, h)
	}
	sum := packet.Checksum(last.b[20:], 0) // over what is there, the pseudo-header's sum among it
	binary.BigEndian.PutUint16(last.b[20+tcpSum:], sum)
	if !bytes.Equal(normal(last.b), normal(want[4])) {
		t.Errorf("completed:\n%x, want\n%x", last.b, want[4])
	}
}
