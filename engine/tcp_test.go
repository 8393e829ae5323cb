package engine

import (
	"fmt"
	"testing"

	"github.com/ipfw/ipfw/packet"
)

// segment is one TCP segment of a conversation between a client (c) outside
// and this host (s).
type segment struct {
	from     byte
	flags    uint8
	seq, ack uint32
	data     int
}

const (
	clientLine = "in tcp 203.0.113.9:40000 -> 198.51.100.10:443"
	serverLine = "out tcp 198.51.100.10:443 -> 203.0.113.9:40000"
)

func (b *bench) talk(segments ...segment) Result {
	b.Helper()
	var r Result
	for _, s := range segments {
		line := clientLine
		if s.from == 's' {
			line = serverLine
		}
		r = b.see(line, flags(s.flags), numbers(s.seq, s.ack), data(s.data))
	}
	return r
}

func (b *bench) onlyState() string {
	b.Helper()
	state := "no flow"
	b.Flows(b.now, func(f FlowInfo) bool { state = f.State; return true })
	return state
}

const (
	syn    = packet.SYN
	synAck = packet.SYN | packet.ACK
	ack    = packet.ACK
	finAck = packet.FIN | packet.ACK
	rst    = packet.RST
	rstAck = packet.RST | packet.ACK
)

var handshake = []segment{{'c', syn, 100, 0, 0}, {'s', synAck, 500, 101, 0}, {'c', ack, 101, 501, 0}}

func after(more ...segment) []segment { return append(handshake[:3:3], more...) }

func TestTCPStates(t *testing.T) {
	for _, row := range []struct {
		state string
		talk  []segment
	}{
		{"syn-sent", handshake[:1]},
		{"syn-sent", append(handshake[:1:1], segment{'s', ack, 9, 9, 0})}, // challenge ACK
		{"syn-received", handshake[:2]},
		{"established", handshake},
		{"syn-received", []segment{{'c', syn, 100, 0, 0}, {'s', syn, 500, 0, 0}}}, // both at once
		{"established", after(segment{'c', ack, 101, 501, 1000}, segment{'s', ack, 501, 1101, 0})},
		{"fin-wait", after(segment{'c', finAck, 101, 501, 0})},
		{"fin-wait", after(segment{'c', finAck, 101, 501, 0}, segment{'s', ack, 501, 102, 500})},
		{"closing", after(segment{'c', finAck, 101, 501, 0}, segment{'s', finAck, 501, 102, 0})},
		{"time-wait", after(segment{'c', finAck, 101, 501, 0}, segment{'s', finAck, 501, 102, 0}, segment{'c', ack, 102, 502, 0})},
		{"closed", append(handshake[:1:1], segment{'s', rstAck, 0, 101, 0})},
		{"closed", after(segment{'c', rst, 101, 0, 0})},
		{"closed", after(segment{'s', rst, 501, 0, 0})},
		{"established", after(segment{'c', rst, 7777, 0, 0})}, // a guess: RFC 5961
		{"established", after(segment{'s', rst, 100, 0, 0})},
		{"syn-sent", append(handshake[:1:1], segment{'s', rstAck, 0, 999, 0})},
		{"established", after(segment{'c', syn, 9999, 0, 0})}, // is answered by a challenge ACK
	} {
		b := newBench(t, webServer(t))
		if r := b.talk(row.talk...); r.Verdict != Bypass {
			t.Errorf("%v: %v %v", row.talk, r.Verdict, r.Reason)
		}
		if got := b.onlyState(); got != row.state {
			t.Errorf("%v: state %s, want %s", row.talk, got, row.state)
		}
	}
}

func TestTCPIsForgotten(t *testing.T) {
	for _, row := range []struct {
		seconds int64
		talk    []segment
	}{
		{120, handshake[:1]},
		{60, handshake[:2]},
		{432000, handshake},
		{120, after(segment{'c', finAck, 101, 501, 0}, segment{'s', finAck, 501, 102, 0}, segment{'c', ack, 102, 502, 0})},
		{10, after(segment{'c', rst, 101, 0, 0})},
		{300, []segment{{'c', ack, 5, 5, 10}}}, // picked up, one side heard
	} {
		b := newBench(t, webServer(t))
		b.talk(row.talk...)
		b.now += row.seconds*second - 1
		b.Expire(b.now)
		if b.Stats().Flows != 1 {
			t.Errorf("%v: forgotten before %d s", row.talk, row.seconds)
		}
		b.now += 2
		b.Expire(b.now)
		if b.Stats().Flows != 0 {
			t.Errorf("%v: known after %d s", row.talk, row.seconds)
		}
	}
}

func TestSYNReopensAClosedFlow(t *testing.T) {
	b := newBench(t, webServer(t))
	b.talk(after(segment{'c', rst, 101, 0, 0})...)
	if r := b.talk(segment{'c', syn, 900, 0, 0}); !r.NewFlow || r.Reason != ReasonRule {
		t.Errorf("%+v", r)
	}
	if s := b.onlyState(); s != "syn-sent" {
		t.Error(s)
	}
	// The host itself may not reopen it: that is another direction.
	b.talk(segment{'s', rstAck, 0, 901, 0})
	p := webServer(t)
	p.Default[Out] = Discard
	b.Reload(p)
	b.want(b.talk(segment{'s', syn, 900, 0, 0}), Discard, ReasonDefault)
}

func TestFloodDoesNotCutSessions(t *testing.T) {
	b := &bench{TB: t, Engine: New(webServer(t), Options{MaxFlows: 64 * flowShards}), now: second}
	b.talk(handshake...)
	full := 0
	for i := range 20000 {
		r := b.see(fmt.Sprintf("in tcp 203.0.%d.%d:1234 -> 198.51.100.10:80", i>>8, i&0xff))
		if r.Reason == ReasonFlowTableFull {
			full++
		}
	}
	b.want(b.talk(segment{'c', ack, 101, 501, 10}), Bypass, ReasonFlow)
	if n := b.Stats().Flows; n > 64*flowShards {
		t.Errorf("%d flows", n)
	}
	if full != 0 {
		t.Errorf("%d half-open connections found no room, though older ones could go", full)
	}
}

func TestFullTableDiscards(t *testing.T) {
	b := &bench{TB: t, Engine: New(webServer(t), Options{MaxFlows: flowShards}), now: second}
	refused := 0
	for i := range 500 {
		line := fmt.Sprintf("in tcp 203.0.113.9:%d -> 198.51.100.10:80", 1000+i)
		r := b.see(line)
		if r.Verdict == Discard {
			if r.Reason != ReasonFlowTableFull {
				t.Fatal(r.Reason)
			}
			refused++
			continue
		}
		b.see(fmt.Sprintf("out tcp 198.51.100.10:80 -> 203.0.113.9:%d", 1000+i), flags(synAck))
		b.see(line, flags(ack))
	}
	if refused < 300 {
		t.Errorf("%d of 500 sessions refused by a table of %d", refused, flowShards)
	}
}
