package host

import (
	"net/netip"
	"testing"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
)

// TestAuditEvent: what RFC 4303 section 3.4.2 wants in the entry of a packet
// that is refused, SPI, addresses, sequence number and the flow ID of IPv6, is
// kept, and told to people in one line.
func TestAuditEvent(t *testing.T) {
	b, err := packet.Build(packet.Spec{Src: netip.MustParseAddr("2001:db8::1"), Dst: netip.MustParseAddr("2001:db8::2"),
		Protocol: packet.ESP, SPI: 0x1001, Payload: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	b[1], b[2], b[3] = b[1]&0xf0|0x0a, 0xbc, 0xde
	b[40+7] = 9
	var in engine.Input
	if f := packet.Parse(&in.Packet, b, len(b)); f != packet.OK {
		t.Fatal(f)
	}
	e := Event{Kind: KindIPsec, Verdict: "discard", Reason: "ipsec-replay", Packet: packetOf(&in)}
	if p := e.Packet; p.FlowLabel != 0xabcde || p.Sequence != 9 || p.SPI != 0x1001 {
		t.Errorf("%+v", p)
	}
	if got, want := e.String(), "discard in esp 2001:db8::1 -> 2001:db8::2 spi 0x1001, ipsec-replay, sequence number 9"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	e = Event{Kind: KindIPsec, Verdict: "discard", Reason: "clear-text", Rule: "files", Place: "a.hcl:3", Packet: Packet{Direction: "in", Protocol: packet.TCP,
		Source: netip.MustParseAddr("10.0.0.7"), Destination: netip.MustParseAddr("10.0.0.5"), SourcePort: 50000, DestinationPort: 445}}
	if got, want := e.String(), `discard in tcp 10.0.0.7:50000 -> 10.0.0.5:445 by rule "files" (a.hcl:3), clear-text`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	// A default has the name that flows, status, explain and replay give it.
	e.Kind, e.Reason, e.Rule, e.Place = KindPacket, "default", "", ""
	if got, want := e.String(), `discard in tcp 10.0.0.7:50000 -> 10.0.0.5:445 by (inbound default)`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
