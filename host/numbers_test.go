package host

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
)

// TestDamagedNumbers damages the files that say where the SAs of a policy are. The
// daemon starts all the same and says so; other traffic is judged as ever; and no
// sequence number is used again, not by the next run either, until there are new keys.
func TestDamagedNumbers(t *testing.T) {
	for name, text := range map[string]string{"empty": "", "zeros": "\x00\x00\x00\x00", "cut": "12 34", "negative": "-5", "too long": strings.Repeat("9", 40)} {
		for _, extra := range []string{"", "esn = true"} {
			t.Run(name+" "+extra, func(t *testing.T) {
				state, keys := t.TempDir(), keyFile(t, "1")
				policy := protectPolicy(0x1001, keys, extra)
				run := func(policy string) *testDaemon {
					t.Helper()
					return start(t, policy, func(o *Options) { o.StateDir = state })
				}
				stop := func(d *testDaemon) {
					t.Helper()
					d.stop()
					if err := <-d.done; err != nil {
						t.Fatal(err)
					}
				}
				seal := func(d *testDaemon, want engine.Verdict) {
					t.Helper()
					r, _ := d.kernel.packet(t, engine.Out, toPeer("203.0.113.9"))
					if r.Verdict != want || want == engine.Discard && r.Reason.String() != "ipsec-sequence-exhausted" {
						t.Errorf("%v (%v), want %v", r.Verdict, r.Reason, want)
					}
				}
				d := run(policy)
				seal(d, engine.Protect)
				stop(d)
				files, err := filepath.Glob(filepath.Join(state, "*.seq"))
				if err != nil || len(files) == 0 {
					t.Fatal(files, err)
				}
				for _, f := range files {
					if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				for range 2 { // the next run, and the one behind it
					d = run(policy)
					seal(d, engine.Discard)
					if r, _ := d.kernel.packet(t, engine.Out, packet.Spec{Src: toPeer("203.0.113.9").Src, Dst: toPeer("192.0.2.1").Dst,
						Protocol: packet.UDP, SrcPort: 40000, DstPort: 53, TTL: 64}); r.Verdict != engine.Bypass {
						t.Errorf("other traffic: %v (%v)", r.Verdict, r.Reason)
					}
					stop(d)
				}
				aside, err := filepath.Glob(filepath.Join(state, "*.damaged"))
				if err != nil || len(aside) != len(files) {
					t.Errorf("of %d damaged files %d are set aside", len(files), len(aside))
				}
				d = run(strings.Replace(policy, keys, keyFile(t, "2"), 1))
				seal(d, engine.Protect)
				stop(d)
			})
		}
	}
}

// TestDamagedNumbersAreTold wants one sentence about each file.
func TestDamagedNumbersAreTold(t *testing.T) {
	state, policy := t.TempDir(), protectPolicy(0x1001, keyFile(t, "1"), "")
	d := start(t, policy, func(o *Options) { o.StateDir = state })
	d.kernel.packet(t, engine.Out, toPeer("203.0.113.9"))
	d.stop()
	<-d.done
	files, _ := filepath.Glob(filepath.Join(state, "*.seq"))
	for _, f := range files {
		if err := os.Truncate(f, 0); err != nil {
			t.Fatal(err)
		}
	}
	d = start(t, policy, func(o *Options) { o.StateDir = state })
	e := d.waitForMessage(t, KindState, `the out SA of ipsec "peer": `)
	for _, want := range []string{files[0], "holds no sequence number", "set aside", "new keys"} {
		if !strings.Contains(e.Message, want) {
			t.Errorf("no %q in %q", want, e.Message)
		}
	}
	if e.Place == "" {
		t.Error("the event does not say where the block stands")
	}
}
