package host

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// logOf gives the lines that events make in a log that is held to a rate.
func logOf(rate uint32, events ...Event) []string {
	var log bytes.Buffer
	d := &daemon{started: time.Now(), ring: newRing(2 * len(events)), o: Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}}
	d.logRate.Store(rate)
	rd := d.ring.reader(0)
	for i := range events {
		events[i].Time = d.started.Add(time.Duration(i)) // all at once
		d.ring.add(&events[i])
	}
	d.ring.close()
	d.logEvents(rd)
	return strings.Split(strings.TrimSpace(log.String()), "\n")
}

// TestLogRate holds everything to the policy's log rate that others can cause by
// what they send, and nothing else.
func TestLogRate(t *testing.T) {
	const rate, many = 5, 1000
	failed := &IKEEvent{What: "failed", Failure: "no-proposal"}
	for _, c := range []struct {
		event Event
		lines int
	}{
		{Event{Kind: KindPacket, Packet: Packet{Direction: "in"}}, rate},
		{Event{Kind: KindAudit, Packet: Packet{Direction: "in"}}, rate},
		{Event{Kind: KindIPsec, Packet: Packet{Direction: "in"}}, rate},
		{Event{Kind: KindMalformed}, rate},
		{Event{Kind: KindIKE, IKE: failed, Message: failed.String()}, rate},
		{Event{Kind: KindIKE, IKE: &IKEEvent{What: "ike-up"}}, rate * logPeersAtOnce},
		{Event{Kind: KindIKE, IKE: &IKEEvent{What: "silent", stranger: true}}, rate},
		{Event{Kind: KindIKE, Message: "an address was looked up"}, many},
		{Event{Kind: KindIKE, Message: "no SA for a packet", caused: true}, rate},
		{Event{Kind: KindTable, Count: 1}, many},
		{Event{Kind: KindReload}, many},
	} {
		events := make([]Event, many)
		for i := range events {
			events[i] = c.event
		}
		if got := len(logOf(rate, events...)); got != c.lines {
			t.Errorf("%d events of kind %s %v: %d lines in the log, want %d", many, c.event.Kind, c.event.IKE, got, c.lines)
		}
	}
	if got := len(logOf(0, make([]Event, many)...)); got != many {
		t.Errorf("without a rate: %d lines, want %d", got, many)
	}
}

// TestRingBoundsBytes fills a ring with long texts: it holds no more than its bytes,
// and always the newest event.
func TestRingBoundsBytes(t *testing.T) {
	const size = 4096
	r := newRing(size)
	rd := r.reader(0)
	text := strings.Repeat("x", 100_000)
	const n = 500
	for i := range n {
		r.add(&Event{Kind: KindIKE, Message: fmt.Sprint(i), IKE: &IKEEvent{Theirs: text}})
		if r.bytes > maxEventBytes {
			t.Fatalf("%d bytes are held after %d events", r.bytes, i+1)
		}
	}
	held := int(r.held())
	if most := maxEventBytes / len(text); held < most-1 || held > most {
		t.Errorf("%d events are held, want %d", held, most)
	}
	got := seqs(rd, size)
	if len(got) != held || got[len(got)-1] != n {
		t.Errorf("read %d events, the last is %d", len(got), got[len(got)-1])
	}
	if _, lost := r.counts(); lost != uint64(n-held) {
		t.Errorf("%d lost, want %d", lost, n-held)
	}
	r.add(&Event{Kind: KindIKE, Message: strings.Repeat("y", maxEventBytes+1)})
	if r.held() != 1 {
		t.Errorf("%d events are held beside one that is too long for all others", r.held())
	}
	addN(r, size)
	if r.bytes != 0 || r.held() != size {
		t.Errorf("%d bytes and %d events are held in the end", r.bytes, r.held())
	}
}
