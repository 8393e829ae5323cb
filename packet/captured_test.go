package packet

import (
	"bytes"
	"testing"
)

// offloaded is a packet as the kernel hands it to a capture before it is cut into
// segments: n bytes of payload, and no length in its header.
func offloaded(t testing.TB, s Spec, n int) []byte {
	t.Helper()
	b := append(build(t, s), make([]byte, n)...)
	if b[0]>>4 == 4 {
		b[2], b[3] = 0, 0
	} else {
		b[4], b[5] = 0, 0
	}
	return b
}

// TestParseCaptured: a length of 0 is what was captured, and nothing else is
// read in another way than the daemon does.
func TestParseCaptured(t *testing.T) {
	ack := Spec{Protocol: TCP, TCPFlags: ACK}
	jumbo := func(length int) Extension {
		return Extension{HopByHop, []byte{0xc2, 4, byte(length >> 24), byte(length >> 16), byte(length >> 8), byte(length)}}
	}
	cut := func(b []byte, n int) []byte { return b[:n] }
	for _, row := range []struct {
		name string
		b    []byte
		wire int // 0: len(b)
		want Fault
		len  int // 0: wire
	}{
		{"IPv4, 2,896 bytes of TCP", offloaded(t, ack, 2896), 0, OK, 0},
		{"IPv4, more than a header can say", offloaded(t, ack, 180_000), 0, OK, 0},
		{"IPv4, cut by the capture", cut(offloaded(t, ack, 0), 40), 70_000, OK, 0},
		{"IPv6", offloaded(t, six(ack), 2896), 0, OK, 0},
		{"IPv6, more than a header can say", offloaded(t, six(ack), 180_000), 0, OK, 0},
		{"IPv6, which an option says", offloaded(t, six(ack, jumbo(8+20+180_000)), 180_000), 0, OK, 0},
		{"IPv6, which an option says, and a check sequence behind", offloaded(t, six(ack, jumbo(8+20+180_000)), 180_004), 0, OK, 40 + 8 + 20 + 180_000},
		{"IPv6, an option that says more", offloaded(t, six(ack, jumbo(8+20+180_001)), 180_000), 0, BadLength, 0},
		{"IPv6, an option that says what a header could", offloaded(t, six(ack, jumbo(1000)), 180_000), 0, BadLength, 0},
		{"IPv6, no next header", offloaded(t, six(Spec{Protocol: NoNext, Raw: true}), 6), 0, OK, 40},
		{"IPv4, a length that is stated", append(build(t, ack), make([]byte, 6)...), 0, OK, 40},
		{"IPv4, a length below the header", build(t, ack, 3, 19), 0, BadLength, 0},
		{"IPv4, a length above what was captured", build(t, ack, 3, 41), 0, BadLength, 0},
		{"IPv6, a jumbo option beside a length", build(t, six(ack, jumbo(70_000))), 0, BadLength, 0},
	} {
		wire := max(row.wire, len(row.b))
		var p Packet
		got := ParseCaptured(&p, row.b, wire)
		checkInvariants(t, &p, row.b, got)
		if want := max(row.len, map[bool]int{true: wire}[row.len == 0]); got != row.want || got == OK && p.Len != want {
			t.Errorf("%s: %v, %d bytes; want %v, %d", row.name, got, p.Len, row.want, want)
		}
		if got == OK && row.len == 0 && Parse(&p, row.b, wire) == OK {
			t.Errorf("%s: the daemon takes it too", row.name)
		}
	}
}

// FuzzParseCaptured: as FuzzParse; and where the header states a length, a capture
// is read as the daemon reads the wire.
func FuzzParseCaptured(f *testing.F) {
	for _, b := range seeds(f) {
		f.Add(b, uint16(0))
		b = bytes.Clone(b)
		if b[0]>>4 == 4 {
			b[2], b[3] = 0, 0
		} else {
			b[4], b[5] = 0, 0
		}
		f.Add(b, uint16(7))
	}
	f.Fuzz(func(t *testing.T, b []byte, cut uint16) {
		var p, q Packet
		got := ParseCaptured(&p, b, len(b)+int(cut))
		checkInvariants(t, &p, b, got)
		if got == OK && p.Len > len(b)+int(cut) {
			t.Fatalf("%d bytes of %d", p.Len, len(b)+int(cut))
		}
		stated := len(b) >= 40 && (b[0]>>4 == 4 && (b[2]|b[3]) != 0 || b[0]>>4 == 6 && (b[4]|b[5]) != 0)
		if stated && (Parse(&q, b, len(b)+int(cut)) != got || got == OK && (q.Len != p.Len || q.Transport != p.Transport || q.SrcPort != p.SrcPort)) {
			t.Fatalf("%v: %+v\n%+v", got, p, q)
		}
	})
}
