package engine

import (
	"fmt"
	"testing"
)

// session completes a handshake with the web server, and says whether it may.
func (b *bench) session(remote string, port int) bool {
	line := fmt.Sprintf("in tcp %s:%d -> 198.51.100.10:80", remote, port)
	from := "198.51.100.10:80"
	if b.see(line).Verdict == Discard {
		return false
	}
	b.see(fmt.Sprintf("out tcp %s -> %s:%d", from, remote, port), flags(synAck))
	b.see(line, flags(ack))
	return true
}

// Whoever completes handshakes, as many as there is room for, keeps nobody out
// and cuts nobody off.
func TestSessionsOfOneNetworkGiveWay(t *testing.T) {
	for _, networks := range []int{1, 8} {
		t.Run(fmt.Sprintf("%d networks", networks), func(t *testing.T) {
			b := &bench{TB: t, Engine: New(webServer(t), Options{MaxFlows: 256 * flowShards}), now: second}
			before := 0 // honest ones that were there first
			for i := range 200 {
				if b.session(fmt.Sprintf("192.0.2.%d", i), 4000) {
					before++
				}
			}
			for i := range 2 * 256 * flowShards {
				b.session(fmt.Sprintf("203.0.%d.%d", i%networks, i/networks%250), 1000+i/250/networks)
			}
			if n := b.Stats().Flows; n < 250*flowShards {
				t.Fatalf("only %d flows: the table is not full", n)
			}
			b.now += 3600 * second
			refused := 0
			for i := range 1000 {
				if !b.session(fmt.Sprintf("10.%d.%d.1", i>>8, i&0xff), 5000) {
					refused++
				}
			}
			if refused > 0 {
				t.Errorf("%d of 1,000 honest callers refused", refused)
			}
			cut := 0
			for i := range 200 {
				if r := b.see(fmt.Sprintf("in tcp 192.0.2.%d:4000 -> 198.51.100.10:80", i), flags(ack)); r.Reason != ReasonFlow {
					cut++
				}
			}
			if cut > 200-before {
				t.Errorf("%d of %d honest sessions cut", cut-(200-before), before)
			}
		})
	}
}

// What a network has by right it keeps, however many others come.
func TestSessionsKeepTheirShare(t *testing.T) {
	b := &bench{TB: t, Engine: New(webServer(t), Options{MaxFlows: 64 * flowShards}), now: second}
	for i := range 5 * flowShards { // about five in a shard
		b.session("192.0.2.1", 1000+i)
	}
	had := map[int]bool{}
	for i := range 5 * flowShards {
		if r := b.see(fmt.Sprintf("in tcp 192.0.2.1:%d -> 198.51.100.10:80", 1000+i), flags(ack)); r.Reason == ReasonFlow {
			had[i] = true
		}
	}
	for i := range 3 * 64 * flowShards {
		b.session(fmt.Sprintf("%d.%d.%d.9", 20+i>>16, i>>8&0xff, i&0xff), 4000)
	}
	cut := 0
	for i := range had {
		if r := b.see(fmt.Sprintf("in tcp 192.0.2.1:%d -> 198.51.100.10:80", 1000+i), flags(ack)); r.Reason != ReasonFlow {
			cut++
		}
	}
	if cut > len(had)/10 { // shards are not all alike: some had more than eight of them
		t.Errorf("%d of %d cut", cut, len(had))
	}
}

// A flow in a full table that may go anyway is found behind any number of those
// that may not.
func TestSpareFlowsAreFound(t *testing.T) {
	b := &bench{TB: t, Engine: New(webServer(t), Options{MaxFlows: 4 * evictionScan * flowShards}), now: second}
	for i := range 2 * evictionScan * flowShards { // no shard is full of them, by chance either
		b.session(fmt.Sprintf("%d.%d.%d.9", 20+i>>16, i>>8&0xff, i&0xff), 4000)
	}
	for i := range 4 * evictionScan * flowShards {
		b.see(fmt.Sprintf("in tcp 203.0.%d.%d:1234 -> 198.51.100.10:80", i>>8, i&0xff))
	}
	refused := 0
	for i := range 200 {
		if !b.session(fmt.Sprintf("192.0.2.%d", i), 4000) {
			refused++
		}
	}
	if refused > 0 {
		t.Errorf("%d of 200 refused, though half-open flows could go", refused)
	}
}

// A flood that finds no room does not count the shard for each packet.
func BenchmarkFullTable(bm *testing.B) {
	b := &bench{TB: bm, Engine: New(webServer(bm), Options{}), now: second}
	for i := range defaultMaxFlows + 1<<14 {
		b.session(fmt.Sprintf("%d.%d.%d.9", 20+i>>16, i>>8&0xff, i&0xff), 4000)
	}
	bm.ResetTimer()
	for i := range bm.N {
		b.see(fmt.Sprintf("in tcp 20.%d.%d.9:5000 -> 198.51.100.10:80", i>>8&0xff, i&0xff))
	}
}
