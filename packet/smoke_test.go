package packet

import (
	"net/netip"
	"testing"
)

func TestSmoke(t *testing.T) {
	for _, a := range [][2]string{{"192.0.2.1", "192.0.2.2"}, {"2001:db8::1", "2001:db8::2"}} {
		for _, pr := range []uint8{TCP, UDP, UDPLite, SCTP, ICMP, ICMPv6, ESP, AH, GRE, 99} {
			b, err := Build(Spec{Src: netip.MustParseAddr(a[0]), Dst: netip.MustParseAddr(a[1]), Protocol: pr, SrcPort: 1, DstPort: 2, TCPFlags: SYN, SPI: 256, ICMPType: 128, EchoID: 7, Payload: []byte("hello")})
			if err != nil {
				t.Fatal(err)
			}
			var p Packet
			if f := Parse(&p, b, len(b)); f != OK {
				t.Error(pr, f)
			}
			if string(b[p.Payload:]) != "hello" && pr != 99 && !(pr == ICMP && p.Version == 6) && !(pr == ICMPv6 && p.Version == 4) {
				t.Error(pr, p.Payload, b)
			}
		}
	}
}
