package packet

import (
	"cmp"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"testing"
)

// slowChecksum is RFC 1071 section 1 word by word.
func slowChecksum(b []byte, initial uint32) uint16 {
	sum := uint64(initial)
	for i := 0; i < len(b); i += 2 {
		word := uint64(b[i]) << 8
		if i+1 < len(b) {
			word |= uint64(b[i+1])
		}
		sum += word
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func TestChecksum(t *testing.T) {
	// The example of RFC 1071 section 3: the sum is ddf2.
	if got := Checksum([]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}, 0); got != ^uint16(0xddf2) {
		t.Errorf("RFC 1071: %04x", got)
	}
	r := rand.New(rand.NewPCG(5, 6))
	for i := range 20000 {
		b := make([]byte, r.IntN(300))
		for j := range b {
			b[j] = byte(r.Uint32())
			if i%3 == 0 {
				b[j] = 0xff // the carries
			}
		}
		initial := r.Uint32() >> r.IntN(32)
		if got, want := Checksum(b, initial), slowChecksum(b, initial); got != want {
			t.Fatalf("%x from %x: got %04x, want %04x", b, initial, got, want)
		}
	}
}

func TestSetChecksum(t *testing.T) {
	for proto, least := range map[uint8]int{TCP: 20, UDP: 8, UDPLite: 8, SCTP: 12, ICMP: 4, ICMPv6: 4} {
		if SetChecksum(make([]byte, least-1), v4a, v4b, proto) {
			t.Errorf("%s: filled in %d bytes", ProtocolName(proto), least-1)
		}
		if !SetChecksum(make([]byte, least), v4a, v4b, proto) {
			t.Errorf("%s: did not fill in %d bytes", ProtocolName(proto), least)
		}
	}
	if SetChecksum(make([]byte, 100), v4a, v4b, ESP) {
		t.Error("ESP has no checksum")
	}
	// A UDP checksum that comes out as 0 is sent as ffff (RFC 768).
	b := make([]byte, 10)
	SetChecksum(b, v4a, v4b, UDP)
	copy(b[8:], b[6:8])
	if SetChecksum(b, v4a, v4b, UDP); b[6] != 0xff || b[7] != 0xff {
		t.Errorf("zero sum is sent as %x", b[6:8])
	}
	// UDP-Lite covers as much as it says (RFC 3828 section 3.1).
	b = build(t, Spec{Protocol: UDPLite, Coverage: 10, Payload: []byte("abcdef")})
	p := parsed(t, b)
	if got := Checksum(b[20:30], PseudoHeader(p.Src, p.Dst, UDPLite, 14)); got != 0 {
		t.Errorf("UDP-Lite: %04x is left over", got)
	}
	// SCTP (RFC 9260 appendix A).
	b = build(t, Spec{Protocol: SCTP, Tag: 5, Payload: []byte("abcd")})[20:]
	sum := uint32(b[8]) | uint32(b[9])<<8 | uint32(b[10])<<16 | uint32(b[11])<<24
	clear(b[8:12])
	if want := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)); sum != want {
		t.Errorf("SCTP: %08x, want %08x", sum, want)
	}
}

// What Linux before 6.11 makes of an open checksum of SCTP gets the right one;
// everything else stays.
func TestMendSCTP(t *testing.T) {
	for n := range 2000 {
		right := build(t, Spec{Protocol: SCTP, Tag: uint32(n), Payload: []byte("abcdef")[:n%7]})[20:]
		b := slices.Clone(right)
		if MendSCTP(b) || !slices.Equal(b, right) {
			t.Fatalf("a right one was changed: %x, was %x", b, right)
		}
		clear(b[8:12])
		be.PutUint16(b[8:], cmp.Or(slowChecksum(b, 0), 0xffff))
		if !MendSCTP(b) || !slices.Equal(b, right) {
			t.Fatalf("not mended: %x, want %x", b, right)
		}
		b[len(b)-1] ^= 1
		wrong := slices.Clone(b)
		if MendSCTP(b) || !slices.Equal(b, wrong) {
			t.Fatalf("a wrong one of others was changed: %x, was %x", b, wrong)
		}
	}
	for n := range sctpHeader {
		if MendSCTP(make([]byte, n)) {
			t.Errorf("%d bytes were mended", n)
		}
	}
}
