package engine

import (
	"testing"
	"time"

	"github.com/ipfw/ipfw/packet"
)

// A client has closed its half, and the server thinks for longer than conntrack
// waits (kubernetes/kubernetes#32551): the answer passes where policy says so, by
// our own memory of the flow and by the kernel's, which has forgotten it. Nothing
// else lets it pass: the server may open nothing.
func TestHalfClosed(t *testing.T) {
	for _, ends := range [][2]string{{"203.0.113.9:40000", "198.51.100.10:443"}, {"[2001:db8::9]:40000", "[2001:db8::10]:443"}} {
		for _, offload := range []bool{false, true} {
			for _, row := range []struct {
				said   time.Duration
				thinks time.Duration
				passes bool
			}{
				{0, 75 * time.Second, !offload}, {0, 130 * time.Second, false},
				{10 * time.Minute, 130 * time.Second, true}, {10 * time.Minute, 11 * time.Minute, false},
				{90 * time.Second, 100 * time.Second, false}, {90 * time.Second, 80 * time.Second, true},
			} {
				p := webServer(t)
				p.Default[Out] = Discard
				p.Timeouts.TCPHalfClosed = row.said
				b := newBench(t, p)
				see := func(line string, f uint8, change ...func(*Input)) Result {
					t.Helper()
					in := b.input(line, flags(f), numbers(7, 7))
					in.Offloadable = offload
					for _, c := range change {
						c(&in)
					}
					return b.Judge(&in)
				}
				there, back := "in tcp "+ends[0]+" -> "+ends[1], "out tcp "+ends[1]+" -> "+ends[0]
				see(there, syn)
				see(back, synAck, tracked, replying)
				see(there, ack, tracked)
				see(there, finAck, tracked)
				see(back, ack, tracked, replying)
				if offload { // the kernel forgets it after its own 60 s
					b.now += int64(60 * time.Second)
					c := carried(ends[0], ends[1])
					c.State, c.Ended, c.Packets, c.Bytes = 5, true, [2]uint64{3, 2}, [2]uint64{200, 100}
					b.Carried(b.now, &c)
					b.now += int64(row.thinks - 60*time.Second)
				} else {
					b.now += int64(row.thinks)
				}
				if got := see(back, ack); (got.Verdict == Bypass) != row.passes {
					t.Errorf("%s, offload %v, said %v, after %v: %v (%v)", ends[0], offload, row.said, row.thinks, got.Verdict, got.Reason)
				}
			}
		}
	}
}

// What the kernel counts of a flow that it has forgotten and found again counts
// once, and the flow ends with it when it is closed.
func TestForgottenAndFound(t *testing.T) {
	p := webServer(t)
	p.Timeouts.TCPEstablished = 24 * time.Hour
	b := newBench(t, p)
	b.offer(clientLine)
	c := carried("203.0.113.9:40000", "198.51.100.10:443")
	syns := b.rule("web").Bytes
	c.Packets, c.Bytes, c.Ended = [2]uint64{10, 10}, [2]uint64{1000, 1000}, true
	b.Carried(b.now, &c)
	b.now += int64(time.Hour)
	up := b.offer(serverLine + " established")
	b.want(up, Bypass, ReasonFlow)
	if up.Offload != b.Generation() {
		t.Error("the kernel is not told again")
	}
	// The kernel has seen the server first, and takes it for the opener.
	c.Source, c.Dest = c.Dest, c.Source
	before := b.rule("web")
	c.Packets, c.Bytes, c.Ended = [2]uint64{4, 2}, [2]uint64{400, 200}, false
	b.Carried(b.now, &c)
	if got := b.rule("web"); got.Packets != before.Packets+5 || got.Bytes != before.Bytes+600-syns {
		t.Errorf("%+v after %+v", got, before)
	}
	c.State, c.Ended = 7, true // TIME_WAIT
	b.Carried(b.now, &c)
	if s := b.onlyState(); s != "no flow" {
		t.Error(s)
	}
}

// Each word holds for its own kind of flow.
func TestTimeouts(t *testing.T) {
	const d = 7 * time.Second
	udp := flow{key: flowKey{proto: packet.UDP}}
	both := flow{key: flowKey{proto: packet.UDP}, replied: true}
	state := func(s tcpState) flow { return flow{key: flowKey{proto: packet.TCP}, state: s, replied: true} }
	for _, row := range []struct {
		said  Timeouts
		f     flow
		usual int64
	}{
		{Timeouts{UDP: d}, both, timeoutUDPBoth}, {Timeouts{UDPUnreplied: d}, udp, timeoutUDP},
		{Timeouts{ICMP: d}, flow{key: flowKey{proto: packet.ICMP}}, timeoutICMP}, {Timeouts{ICMP: d}, flow{key: flowKey{proto: packet.ICMPv6}}, timeoutICMP},
		{Timeouts{Generic: d}, flow{key: flowKey{proto: 47}}, timeoutOther},
		{Timeouts{TCPSynSent: d}, state(tcpSynSent), tcpTimeouts[tcpSynSent]}, {Timeouts{TCPSynReceived: d}, state(tcpSynReceived), tcpTimeouts[tcpSynReceived]},
		{Timeouts{TCPEstablished: d}, state(tcpEstablished), tcpTimeouts[tcpEstablished]},
		{Timeouts{TCPHalfClosed: d}, state(tcpFinWait), tcpTimeouts[tcpFinWait]}, {Timeouts{TCPTimeWait: d}, state(tcpTimeWait), tcpTimeouts[tcpTimeWait]},
	} {
		all, none := row.said.compile(), Timeouts{}.compile()
		if got := row.f.timeout(&all); got != int64(d) {
			t.Errorf("%+v: %v", row.said, time.Duration(got))
		}
		if got := row.f.timeout(&none); got != row.usual {
			t.Errorf("%+v: without it %v", row.said, time.Duration(got))
		}
	}
}
