package engine

import "github.com/ipfw/ipfw/packet"

// tcpState is how far a TCP connection has come, as one who watches both
// directions can tell (RFC 9293 section 3.3.2).
type tcpState uint8

const (
	tcpNone        tcpState = iota
	tcpSynSent              // the opener's SYN
	tcpSynReceived          // the answer's SYN
	tcpEstablished          // handshake over, or picked up in its middle
	tcpFinWait              // one side has closed
	tcpClosing              // both sides have closed
	tcpTimeWait             // both closings are acknowledged
	tcpClosed               // reset
)

var tcpStateNames = [...]string{
	"none", "syn-sent", "syn-received", "established", "fin-wait", "closing", "time-wait", "closed",
}

func (s tcpState) String() string { return tcpStateNames[s] }

// tcpTimeouts say how long a connection is remembered in each state after its
// last packet; those of Linux's connection tracking.
var tcpTimeouts = [...]int64{
	tcpNone:        10 * second,
	tcpSynSent:     120 * second,
	tcpSynReceived: 60 * second,
	tcpEstablished: 432000 * second,
	tcpFinWait:     120 * second,
	tcpClosing:     30 * second,
	tcpTimeWait:    120 * second,
	tcpClosed:      10 * second,
}

// timeoutTCPHalf is for a connection picked up in its middle of which only
// one side has been heard.
const timeoutTCPHalf = 300 * second

func (f *flow) tcpTimeout(t *timeouts) int64 {
	if f.state == tcpEstablished && !f.replied {
		return min(timeoutTCPHalf, t.tcp[f.state])
	}
	return t.tcp[f.state]
}

// tcpEnd is what one side of a connection has sent.
type tcpEnd struct {
	next  uint32 // the sequence number after the last byte it sent
	ack   uint32 // its last acknowledgement: what it expects next
	known bool   // next holds something
	acked bool   // ack holds something
	fin   bool   // it has sent FIN; finAt is the number after it
	finAt uint32
}

// opensTCP says whether a segment may begin a flow: a SYN, or, for a
// connection older than this firewall, plain data or an acknowledgement. A
// stray SYN+ACK or RST begins nothing.
func opensTCP(p *packet.Packet) bool {
	return p.TCPFlags&(packet.SYN|packet.ACK|packet.RST) == packet.SYN ||
		p.TCPFlags&(packet.SYN|packet.ACK|packet.RST) == packet.ACK
}

// reopenedBy says whether a SYN begins a new connection between the same ends
// as one that is over (RFC 9293 section 3.6.1).
func (f *flow) reopenedBy(p *packet.Packet) bool {
	return p.Protocol == packet.TCP && p.TCPFlags&(packet.SYN|packet.ACK) == packet.SYN &&
		f.state >= tcpClosing
}

// updateTCP moves the connection on with a segment from one side.
func (f *flow) updateTCP(p *packet.Packet, side uint8) {
	us, them := &f.ends[side], &f.ends[1-side]
	flags := p.TCPFlags
	if flags&packet.RST != 0 {
		if resets(p, us, them) {
			f.state = tcpClosed
		}
		return
	}

	length := uint32(max(0, p.Len-p.Payload))
	if flags&packet.SYN != 0 {
		length++
		f.hearMSS(p, side)
	}
	if flags&packet.FIN != 0 {
		length++
	}
	next := p.Seq + length
	if !us.known || int32(next-us.next) > 0 || flags&packet.SYN != 0 {
		us.next, us.known = next, true
	}
	if flags&packet.ACK != 0 && (!us.acked || int32(p.Ack-us.ack) > 0 || flags&packet.SYN != 0) {
		us.ack, us.acked = p.Ack, true
	}
	if flags&packet.FIN != 0 && !us.fin {
		us.fin, us.finAt = true, next
	}
	f.state = f.nextTCP(flags, side)
}

// nextTCP is the state after a segment that is no reset.
func (f *flow) nextTCP(flags uint8, side uint8) tcpState {
	a, b := &f.ends[0], &f.ends[1]
	switch {
	case a.fin && b.fin:
		if a.acked && b.acked && int32(a.ack-b.finAt) >= 0 && int32(b.ack-a.finAt) >= 0 {
			return tcpTimeWait
		}
		return tcpClosing
	case a.fin || b.fin:
		return tcpFinWait
	case flags&packet.SYN != 0 && f.state < tcpEstablished:
		if side == f.opener && f.state != tcpSynReceived {
			return tcpSynSent
		}
		return tcpSynReceived
	case f.state == tcpSynSent && side != f.opener:
		return tcpSynSent // a challenge ACK, RFC 5961 section 4
	case flags&packet.ACK != 0 && f.state < tcpEstablished:
		return tcpEstablished
	}
	return f.state
}

// resets says whether a reset would be taken by its receiver: it must carry
// the sequence number expected next (RFC 5961 section 3.2), or, where that is
// not known, follow on what its sender has sent; a reset of a half-open
// connection must acknowledge the SYN (RFC 9293 section 3.10.7.3). Any other
// is passed on for the receiver to judge, and ends nothing here.
func resets(p *packet.Packet, us, them *tcpEnd) bool {
	if !us.known {
		return p.TCPFlags&packet.ACK != 0 && them.known && p.Ack == them.next
	}
	return p.Seq == us.next || them.acked && p.Seq == them.ack
}
