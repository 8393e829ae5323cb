package engine

import "github.com/ipfw/ipfw/packet"

// This file is about the length of TCP packets. What the kernel hands over
// may be dozens of segments in one packet, and does not say how long each of
// them was. They are cut up again before they are sealed: not to what fits the
// tunnel, but to no more than what TCP itself would have sent, because behind
// the tunnel may lie a link that carries less. TCP learns that from the other
// side's SYN (RFC 9293 section 3.7.1) and from routers (RFC 1191, RFC 8201),
// and so does the flow. Where a connection is older than the flow, the next
// error of a router tells.

// Bounds of what others say, in bytes: segments are not shorter than Linux
// makes them (TCP_MIN_MSS), nor paths narrower than it believes (min_pmtu; RFC
// 8200 section 5). Work for each packet so has a bound.
const (
	leastMSS     = 88
	leastPathMTU = 552
)

// hearMSS notes what a SYN of one side allows the other to send.
func (f *flow) hearMSS(p *packet.Packet, side uint8) {
	mss, ok := packet.MSS(p)
	if !ok || f.state >= tcpEstablished {
		return
	}
	headers := uint32(40)
	if p.Version == 6 {
		headers = 60
	}
	f.longest[1-side] = uint16(min(headers+uint32(max(mss, leastMSS)), 1<<16-1))
}

// hearPathMTU notes what an ICMP error that is let through says of the path of
// one side's packets.
func (f *flow) hearPathMTU(p *packet.Packet, side uint8) {
	mtu, ok := p.ReportedMTU()
	if !ok || mtu == 0 || f.key.proto != packet.TCP {
		return
	}
	least := leastPathMTU
	if f.key.path&pathIPv6 != 0 {
		least = minMTU6
	}
	mtu = min(max(mtu, least), 1<<16-1)
	if was := f.longest[side]; was == 0 || mtu < int(was) {
		f.longest[side] = uint16(mtu)
	}
}

// segmentLength is how long the pieces of a TCP packet may be that fits whole
// into most bytes: longest is what its flow says, 0 if that is nothing.
func segmentLength(p *packet.Packet, most int, longest uint16) int {
	if longest == 0 {
		return most
	}
	return min(most, max(int(longest), p.Payload+leastMSS))
}
