package host

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/engine"
)

// samples are the events of packets that no rule has asked for.
func (d *testDaemon) samples(t *testing.T) (es []Event) {
	t.Helper()
	for _, e := range d.events(t) {
		if e.Sampled {
			es = append(es, e)
		}
	}
	return es
}

// What is discarded leaves a few events by default, and a flood no more than that.
func TestDiscardsAreSampled(t *testing.T) {
	for _, row := range []struct {
		name, log       string
		discards, opens bool
	}{
		{"default", "", true, false},
		{"discard", `log = "discard"`, true, false},
		{"true", `log = true`, true, false},
		{"all", `log = "all"`, true, true},
		{"none", `log = "none"`, false, false},
		{"false", `log = false`, false, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			policy := strings.Replace(shutPolicy, "{\n", "{\n  "+row.log+"\n", 1) + "rule \"ssh\" {\n  action = \"bypass\"\n  direction = \"in\"\n  protocol = \"tcp\"\n  local_port = 22\n}\n"
			d := start(t, policy)
			const flood = 500
			for range flood {
				d.kernel.tcp(t, 5432)
			}
			if r := d.kernel.tcp(t, 22); r.Verdict != engine.Bypass {
				t.Fatalf("port 22: %s", r.Verdict)
			}
			d.kernel.tcp(t, 80) // has an event of its own
			var discards, opens int
			for _, e := range d.samples(t) {
				switch {
				case e.Kind != KindPacket || e.Packet.DestinationPort == 80:
					t.Errorf("event %+v", e)
				case e.Verdict == "discard":
					discards++
					if e.Reason != "default" || e.Packet.DestinationPort != 5432 {
						t.Errorf("event %+v", e)
					}
				default:
					opens++
				}
			}
			if row.discards && (discards < sampleBurst || discards > flood/2) || !row.discards && discards > 0 {
				t.Errorf("%d of %d discarded packets have an event", discards, flood)
			}
			if row.opens != (opens == 1) {
				t.Errorf("%d openings have an event", opens)
			}
			s, err := d.Status(t.Context())
			if err != nil || len(s.Sources) != 1 || s.Sources[0].Source != netip.MustParseAddr("203.0.113.9") || s.Sources[0].Packets != flood {
				t.Errorf("sources: %+v, %v", s.Sources, err)
			}
		})
	}
}

// A reload changes it, and an event says how many had none.
func TestSampleSaysHowManyAreLeftOut(t *testing.T) {
	d := start(t, shutPolicy)
	for range sampleBurst + 100 {
		d.kernel.tcp(t, 5432)
	}
	left := d.discardsLeft(t)
	if want := "; " + fmt.Sprint(left) + " more since the last are not shown"; left == 0 || !strings.Contains(Event{Kind: KindPacket, Sampled: true, Count: left}.String(), want) {
		t.Errorf("%d left out", left)
	}
	d.write(t, strings.Replace(shutPolicy, "{\n", "{\n  log = false\n", 1))
	if _, err := d.Reload(t.Context(), ReloadRequest{}); err != nil {
		t.Fatal(err)
	}
	n := len(d.samples(t))
	for range 3 * sampleBurst {
		d.kernel.tcp(t, 5432)
	}
	if got := len(d.samples(t)); got != n {
		t.Errorf("%d events under log = false", got-n)
	}
}

// discardsLeft sends until an event comes that says how many had none.
func (d *testDaemon) discardsLeft(t *testing.T) uint64 {
	t.Helper()
	for {
		d.kernel.tcp(t, 5432)
		if es := d.samples(t); es[len(es)-1].Count > 0 {
			return es[len(es)-1].Count
		}
	}
}

// Packets whose discard is no drop, or has an event of its own, are left out.
func TestWhatCountsAsDropped(t *testing.T) {
	var dropped []string
	for r := range engine.Reasons {
		if r := engine.Reason(r); isDropped(r) {
			dropped = append(dropped, r.String())
			if r.Auditable() {
				t.Errorf("%s has an event of its own", r)
			}
		}
	}
	const want = "rule default flow tcp-state flow-table-full fragment-orphan fragment-overlap fragment-table-full source-route"
	if got := strings.Join(dropped, " "); got != want {
		t.Errorf("dropped: %s\nwant: %s", got, want)
	}
}

// Whoever sends much is among the sources, whatever a flood of forged ones does, and
// counting has a bound.
func TestSources(t *testing.T) {
	var s sources
	now := int64(0)
	forged := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	steady := netip.MustParseAddr("2001:db8::66")
	for i := range 100_000 {
		now += 1e6
		s.count(forged(i), now)
		if i%20 == 0 {
			s.count(steady, now)
		}
	}
	// None of those who sent one packet is blamed for those of others.
	if top := s.top(); len(top) != 1 || top[0].Source != steady || top[0].Packets > 5000 || top[0].Packets < 2500 {
		t.Errorf("top: %v", top)
	}
	var full sources
	for range 3 * sourcesEach {
		full.count(steady, 5)
	}
	if top := full.top(); top[0].Packets != sourcesEach {
		t.Errorf("%d counted in one second", top[0].Packets)
	}
	if n := testing.AllocsPerRun(100, func() { s.count(forged(7), now) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// noSamples is a policy without events of packets that no rule logs.
func noSamples(policy string) string {
	return strings.Replace(policy, "outbound = \"bypass\"\n", "outbound = \"bypass\"\n  log = \"none\"\n", 1)
}
