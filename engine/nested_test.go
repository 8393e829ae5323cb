package engine

import (
	"net/netip"
	"testing"

	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
)

// TestNestedGarbage: a peer that has the keys puts things into the SA that are
// no packets, or are IPsec once more. Each is one counted reason; nothing of it
// goes on but what policy lets out of this SA, and nothing is opened twice.
func TestNestedGarbage(t *testing.T) {
	a, b := netip.MustParseAddr(hostA), netip.MustParseAddr(hostB)
	bytes := func(n int, first ...byte) []byte {
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(i*37 + 11)
		}
		copy(p, first)
		return p
	}
	spi := []byte{0, 0, 0x10, 0x02} // b's own
	for _, row := range []struct {
		name    string
		proto   uint8
		payload []byte
		verdict Verdict
		reason  Reason
	}{
		{"no TCP header", packet.TCP, nil, Discard, ReasonTruncated},
		{"three bytes of TCP", packet.TCP, bytes(3), Discard, ReasonTruncated},
		{"TCP data offset of 1", packet.TCP, bytes(40, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 2), Discard, ReasonBadHeaderLength},
		{"TCP SYN+FIN", packet.TCP, bytes(40, 0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 3), Discard, ReasonBadTransport},
		{"cut UDP", packet.UDP, bytes(7), Discard, ReasonTruncated},
		{"UDP longer than the packet", packet.UDP, bytes(16, 0, 1, 0, 2, 1, 0), Discard, ReasonBadLength},
		{"traffic flow padding behind UDP", packet.UDP, append([]byte{0, 1, 0, 2, 0, 12, 0, 0, 1, 2, 3, 4}, make([]byte, 28)...), Protect, ReasonRule},
		{"cut ICMP", packet.ICMP, bytes(3), Discard, ReasonTruncated},
		{"ESP of three bytes", packet.ESP, bytes(3), Discard, ReasonTruncated},
		{"ESP of SPI 0", packet.ESP, make([]byte, 60), Discard, ReasonBadTransport},
		{"AH cut", packet.AH, bytes(11, packet.TCP, 4), Discard, ReasonTruncated},
		{"AH longer than the packet", packet.AH, bytes(24, packet.TCP, 200), Discard, ReasonBadHeaderLength},
		{"ESP of the same SA again", packet.ESP, append(spi[:4:4], bytes(80)...), Protect, ReasonRule},
		{"IP in IP in IP, garbage", packet.IPv4, bytes(40, 0x45), Protect, ReasonRule},
	} {
		for i := range 4 {
			mode, proto := esp.Transport+esp.Mode(i&1), []esp.Protocol{esp.ESP, esp.AH}[i>>1]
			h := newHostsOf(t, proto, mode)
			clear, err := packet.Build(packet.Spec{Src: a, Dst: b, Protocol: 253, Payload: row.payload})
			if err != nil {
				t.Fatal(err)
			}
			clear[9] = row.proto
			clear[10], clear[11] = 0, 0
			sum := packet.Checksum(clear[:20], 0)
			clear[10], clear[11] = byte(sum>>8), byte(sum)
			out := h.a.options.Outbound(&Rule{With: "lan"}, nil)
			sealed, _, f := out.Seal(nil, clear, 0)
			if f != esp.OK {
				t.Fatal(f)
			}
			before := h.b.Stats()
			r, opened := h.arrive(sealed)
			if r.Verdict != row.verdict || r.Reason != row.reason || (opened != nil) != (row.verdict == Protect) {
				t.Errorf("%s, %s, %s: %v (%v), want %v (%v)", proto, mode, row.name, r.Verdict, r.Reason, row.verdict, row.reason)
			}
			after := h.b.Stats()
			for i := range after.Reasons {
				want := before.Reasons[i]
				if Reason(i) == row.reason {
					want++
				}
				if after.Reasons[i] != want {
					t.Errorf("%s, %s, %s: %d times %v, want %d", proto, mode, row.name, after.Reasons[i], Reason(i), want)
				}
			}
			if sa := h.b.options.SAD.Inbound(proto, 0x1002); sa.Counters().Packets != 1 {
				t.Errorf("%s, %s, %s: opened %d times", proto, mode, row.name, sa.Counters().Packets)
			}
		}
	}
}
