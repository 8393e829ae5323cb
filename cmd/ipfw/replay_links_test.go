package main

import (
	"encoding/binary"
	"net/netip"

	"github.com/ipfw/ipfw/packet"
)

// linksCapture is a pcapng file with one packet of each kind of link: plain IP (101), an
// Ethernet frame that is ARP (1), or something that is neither.
func linksCapture(links ...uint16) []byte {
	le := binary.LittleEndian
	block := func(out []byte, kind uint32, body []byte) []byte {
		for len(body)%4 != 0 {
			body = append(body, 0)
		}
		n := uint32(len(body) + 12)
		out = le.AppendUint32(le.AppendUint32(out, kind), n)
		return le.AppendUint32(append(out, body...), n)
	}
	out := block(nil, 0x0a0d0d0a, append([]byte{0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff))
	for i, link := range links {
		out = block(out, 1, append(le.AppendUint16(nil, link), 0, 0, 0, 0, 0, 0))
		frame := make([]byte, 60)
		switch link {
		case 1:
			copy(frame[12:], []byte{0x08, 0x06})
		case 101:
			frame, _ = packet.Build(packet.Spec{Src: netip.MustParseAddr("203.0.113.9"), Dst: netip.MustParseAddr("198.51.100.10"),
				Protocol: packet.TCP, SrcPort: 40000, DstPort: 443, TTL: 64, TCPFlags: packet.SYN})
		}
		head := le.AppendUint32(nil, uint32(i))
		head = le.AppendUint32(le.AppendUint32(head, 391692), 3000000000) // a time in 2023, in microseconds
		head = le.AppendUint32(le.AppendUint32(head, uint32(len(frame))), uint32(len(frame)))
		out = block(out, 6, append(head, frame...))
	}
	return out
}
