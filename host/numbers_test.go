package host

import (
	"encoding/binary"
	"errors"
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

// Keys that go and come back within one process go on where they were, with a folder
// for the state and without: no number is sent twice, and none is taken twice. So too
// where something else of the SA changes, and where a reload fails.
func TestNumbersOutliveAReload(t *testing.T) {
	for _, state := range []string{"", t.TempDir()} {
		t.Run("state "+filepath.Base(state), func(t *testing.T) {
			keys := keyFile(t, "1")
			policy := protectPolicy(0x1001, keys, "replay_window = 64")
			swap := strings.NewReplacer(`"4097"`, `"4098"`, `"4098"`, `"4097"`, "203.0.113.9", "198.51.100.10", "203.0.113", "198.51.100")
			d := start(t, policy, func(o *Options) { o.StateDir = state })
			peer := start(t, swap.Replace(policy))
			reload := func(text string) {
				t.Helper()
				d.write(t, text)
				if _, err := d.Reload(t.Context(), ReloadRequest{}); err != nil {
					t.Fatal(err)
				}
			}
			last := uint32(0)
			var wires [][]byte
			both := func(when string) {
				t.Helper()
				r, out := d.kernel.packet(t, engine.Out, toPeer("203.0.113.9"))
				if out.Replace == nil {
					t.Fatalf("%s: %v (%v)", when, r.Verdict, r.Reason)
				}
				seq := binary.BigEndian.Uint32(out.Replace[24:])
				if seq <= last {
					t.Errorf("%s: number %d after %d", when, seq, last)
				}
				last = seq
				in := func(b []byte) string {
					r, _ := d.kernel.bytes(t, engine.In, append([]byte(nil), b...), func(in *engine.Input) { in.Arriving = true })
					return r.Reason.String()
				}
				for i, b := range wires {
					if got := in(b); got != "ipsec-replay" {
						t.Errorf("%s: packet %d once more: %s", when, i+1, got)
					}
				}
				back := toPeer("198.51.100.10")
				back.Src = toPeer("203.0.113.9").Dst
				_, out = peer.kernel.packet(t, engine.Out, back)
				if out.Replace == nil {
					t.Fatal("the peer does not seal")
				}
				wires = append(wires, append([]byte(nil), out.Replace...))
				if got := in(wires[len(wires)-1]); got != "flow" && got != "rule" {
					t.Errorf("%s: a new packet: %s", when, got)
				}
			}
			both("first")
			both("again")
			for i := range 2 {
				reload(shutPolicy)
				reload(policy)
				both("away and back")
				if i == 0 && last > 3*inWork {
					t.Errorf("away and back costs %d numbers", last)
				}
			}
			both("going on")
			reload(protectPolicy(0x1001, keys, "replay_window = 128"))
			both("another window")
			d.kernel.refuse = errors.New("no")
			d.write(t, policy)
			if _, err := d.Reload(t.Context(), ReloadRequest{}); err == nil {
				t.Fatal("the kernel's refusal is lost")
			}
			d.kernel.refuse = nil
			both("a reload that failed")
			reload(protectPolicy(0x1001, keyFile(t, "2"), "replay_window = 128"))
			reload(protectPolicy(0x1001, keys, "replay_window = 128"))
			both("other keys and back")
		})
	}
}
