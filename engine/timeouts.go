package engine

import (
	"time"

	"github.com/ipfw/ipfw/packet"
)

// Timeouts say how long a flow is remembered after its last packet. 0: what ipfw
// has by itself, which is what Linux's connection tracking has.
//
// For flows that the kernel answers for, its own timeouts count too: a flow that
// it has forgotten goes on until the time that is said here is over, but what is
// said here makes the kernel forget none.
type Timeouts struct {
	TCPSynSent     time.Duration // the opener's SYN is there, 2 minutes
	TCPSynReceived time.Duration // and the answer's, 1 minute
	TCPEstablished time.Duration // 5 days
	TCPHalfClosed  time.Duration // one side has sent FIN, 2 minutes
	TCPTimeWait    time.Duration // both have, and it is acknowledged, 2 minutes
	UDP            time.Duration // both sides have been heard, 2 minutes
	UDPUnreplied   time.Duration // only the opener has, 30 seconds
	ICMP           time.Duration // 30 seconds
	Generic        time.Duration // other protocols, 10 minutes
}

// timeouts are the Timeouts in force, in nanoseconds.
type timeouts struct {
	tcp                      [len(tcpTimeouts)]int64
	udp, udpBoth, icmp, rest int64
	said                     Timeouts
}

func (t Timeouts) compile() timeouts {
	or := func(d time.Duration, usual int64) int64 {
		if d > 0 {
			return int64(d)
		}
		return usual
	}
	x := timeouts{
		tcp: tcpTimeouts, udp: or(t.UDPUnreplied, timeoutUDP), udpBoth: or(t.UDP, timeoutUDPBoth),
		icmp: or(t.ICMP, timeoutICMP), rest: or(t.Generic, timeoutOther), said: t,
	}
	for state, d := range map[tcpState]time.Duration{
		tcpSynSent: t.TCPSynSent, tcpSynReceived: t.TCPSynReceived, tcpEstablished: t.TCPEstablished,
		tcpFinWait: t.TCPHalfClosed, tcpTimeWait: t.TCPTimeWait,
	} {
		x.tcp[state] = or(d, tcpTimeouts[state])
	}
	return x
}

// AnswersWithin is how long after the packet that opens a flow an answer belongs
// to it, of every protocol but TCP.
func (e *Engine) AnswersWithin(protocol uint8) time.Duration {
	t := &e.spd.Load().timeouts
	switch protocol {
	case packet.ICMP, packet.ICMPv6:
		return time.Duration(t.icmp)
	case packet.UDP, packet.UDPLite:
		return time.Duration(t.udp)
	}
	return time.Duration(t.rest)
}

// outlives says until when a flow goes on that the kernel has forgotten; 0: it is
// over, or policy says nothing of how long.
func (f *flow) outlives(t *timeouts) int64 {
	said := time.Duration(0)
	switch s := &t.said; {
	case f.verdict == Discard:
	case f.state == tcpEstablished:
		said = s.TCPEstablished
	case f.state == tcpFinWait:
		said = s.TCPHalfClosed
	case f.state != tcpNone: // opening, or closed
	case f.key.proto == packet.UDP && f.replied:
		said = s.UDP
	case f.key.proto == packet.UDP:
		said = s.UDPUnreplied
	case f.key.proto == packet.ICMP || f.key.proto == packet.ICMPv6:
		said = s.ICMP
	default:
		said = s.Generic
	}
	if said == 0 {
		return 0
	}
	return f.lastSeen + int64(said)
}
