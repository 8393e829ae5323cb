package host

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/packet"
)

// protectPolicy protects what runs between the fake kernel's host and a peer.
func protectPolicy(spi int, keys, extra string) string {
	return fmt.Sprintf(`policy {
  inbound  = "discard"
  outbound = "bypass"
}
rule "peer" {
  action         = "protect"
  with           = "peer"
  direction      = "both"
  remote_address = "203.0.113.0/24"
}
ipsec "peer" {
  mode            = "transport"
  remote_endpoint = "203.0.113.9"
  %s
  manual {
    spi_in     = "%d"
    spi_out    = "%d"
    encryption = "aes-256-cbc"
    integrity  = "hmac-sha2-256-128"
    key_file   = %q
  }
}
`, extra, spi, spi+1, keys)
}

// keyFile writes keys of one digit repeated.
func keyFile(t *testing.T, digit string) string {
	t.Helper()
	key := strings.Repeat(digit, 64)
	path := filepath.Join(t.TempDir(), "peer.keys")
	text := ""
	for _, name := range []string{"encryption_in", "integrity_in", "encryption_out", "integrity_out"} {
		text += name + " = " + key + "\n"
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// packet hands a packet up and gives what became of it.
func (k *fakeKernel) packet(t *testing.T, d engine.Direction, s packet.Spec, change ...func(*engine.Input)) (engine.Result, *engine.Output) {
	t.Helper()
	b, err := packet.Build(s)
	if err != nil {
		t.Fatal(err)
	}
	return k.bytes(t, d, b, change...)
}

func (k *fakeKernel) bytes(t *testing.T, d engine.Direction, b []byte, change ...func(*engine.Input)) (engine.Result, *engine.Output) {
	t.Helper()
	in := engine.Input{Dir: d}
	f := packet.Parse(&in.Packet, b, len(b))
	for _, c := range change {
		c(&in)
	}
	out := new(engine.Output)
	return k.h.Handle(&in, out, f), out
}

// toPeer is a packet that the policy wants protected.
func toPeer(dst string) packet.Spec {
	return packet.Spec{Src: netip.MustParseAddr("198.51.100.10"), Dst: netip.MustParseAddr(dst),
		Protocol: packet.UDP, SrcPort: 40000, DstPort: 53, TTL: 64}
}

// list gives the SAs as "in 0x1001 5 packets", in order.
func (d *testDaemon) list(t *testing.T) (list []string, all []SA) {
	t.Helper()
	if err := d.SAs(t.Context(), func(s SA) error {
		text := fmt.Sprintf("%s %#x %d", s.Direction, s.SPI, s.Packets)
		if s.Replaced {
			text += " replaced"
		}
		list, all = append(list, text), append(all, s)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return list, all
}

func (d *testDaemon) wantSAs(t *testing.T, want ...string) {
	t.Helper()
	if got, _ := d.list(t); strings.Join(got, ", ") != strings.Join(want, ", ") {
		t.Errorf("SAs:\n got %s\nwant %s", strings.Join(got, ", "), strings.Join(want, ", "))
	}
}

// A reload keeps the SAs that nothing has changed of, replaces those that
// have, ends those that are named no more, and changes nothing when it fails.
func TestKeeperReload(t *testing.T) {
	one, two := keyFile(t, "1"), keyFile(t, "2")
	d := start(t, protectPolicy(0x1001, one, ""))
	reload := func(text string) error {
		t.Helper()
		d.write(t, text)
		_, err := d.Reload(t.Context(), ReloadRequest{})
		return err
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	seal := func(want engine.Verdict) {
		t.Helper()
		if r, _ := d.kernel.packet(t, engine.Out, toPeer("203.0.113.9")); r.Verdict != want {
			t.Fatalf("%v (%v), want %v", r.Verdict, r.Reason, want)
		}
	}
	seal(engine.Protect)
	d.wantSAs(t, "in 0x1001 0", "out 0x1002 1")
	must(reload(protectPolicy(0x1001, one, "") + "locals {\n  x = 1\n}\n"))
	seal(engine.Protect)
	d.wantSAs(t, "in 0x1001 0", "out 0x1002 2")

	must(reload(protectPolicy(0x1001, two, ""))) // the same SPIs under other keys
	seal(engine.Protect)
	d.wantSAs(t, "in 0x1001 0", "out 0x1002 2 replaced", "out 0x1002 1")

	d.kernel.refuse = errors.New("no")
	if reload(protectPolicy(0x2001, one, "")) == nil {
		t.Fatal("the kernel's refusal is lost")
	}
	d.kernel.refuse = nil
	seal(engine.Protect)
	d.wantSAs(t, "in 0x1001 0", "out 0x1002 2 replaced", "out 0x1002 2")

	must(reload(protectPolicy(0x2001, one, ""))) // other SPIs
	seal(engine.Protect)
	d.wantSAs(t, "in 0x1001 0 replaced", "in 0x2001 0", "out 0x1002 2 replaced", "out 0x1002 2 replaced", "out 0x2002 1")

	must(os.Chmod(one, 0o644))
	if err := reload(protectPolicy(0x3001, one, "")); err == nil {
		t.Error("keys that others can read are taken")
	}
	seal(engine.Protect)
	must(reload(shutPolicy))
	d.wantSAs(t, "in 0x1001 0 replaced", "out 0x1002 2 replaced", "out 0x1002 2 replaced")
}

// In transport mode an SA is with one peer, whatever range its rule names.
func TestKeeperPeer(t *testing.T) {
	d := start(t, protectPolicy(0x1001, keyFile(t, "1"), ""))
	if r, _ := d.kernel.packet(t, engine.Out, toPeer("203.0.113.10")); r.Verdict != engine.Discard || r.Reason != engine.ReasonNoSA {
		t.Errorf("to another host of the rule's range: %v (%v)", r.Verdict, r.Reason)
	}
	e := d.waitFor(t, KindIPsec)
	if e.Reason != "no-sa" || e.Rule != "peer" || e.Packet.Destination.String() != "203.0.113.10" ||
		e.Message != "no SA can be there for this packet: its SA is with 203.0.113.9 only" {
		t.Errorf("event %v", e)
	}
}

// A lifetime stops an SA, and its keys are gone.
func TestKeeperLifetime(t *testing.T) {
	d := start(t, protectPolicy(0x1001, keyFile(t, "1"), "lifetime_packets = 2"))
	for i, want := range []engine.Verdict{engine.Protect, engine.Protect, engine.Discard} {
		if r, _ := d.kernel.packet(t, engine.Out, toPeer("203.0.113.9")); r.Verdict != want {
			t.Errorf("packet %d: %v (%v)", i+1, r.Verdict, r.Reason)
		}
	}
	d.waitForMessage(t, KindSA, "lifetime")
	d.wantSAs(t, "in 0x1001 0")
	if r, _ := d.kernel.packet(t, engine.Out, toPeer("203.0.113.9")); r.Verdict != engine.Discard || r.Reason != engine.ReasonNoSA {
		t.Errorf("afterwards: %v (%v)", r.Verdict, r.Reason)
	}
}

// waitForMessage waits for an event of a kind whose message holds a text.
func (d *testDaemon) waitForMessage(t *testing.T, k Kind, text string) (found Event) {
	t.Helper()
	stop := errors.New("found")
	if err := d.Events(t.Context(), 1000, true, func(e Event) error {
		if e.Kind == k && strings.Contains(e.Message, text) {
			found = e
			return stop
		}
		return nil
	}); err != stop {
		t.Fatalf("no event %s with %q: %v", k, text, err)
	}
	return found
}

// Two daemons with the same keys, in and out changed: what one seals the other
// opens, once; and everything else is refused, counted and told.
func TestKeeperPair(t *testing.T) {
	keys := keyFile(t, "1") // all four alike, so both ends can use it
	policy := protectPolicy(0x1001, keys, "replay_window = 64")
	swapped := strings.NewReplacer(`"4097"`, `"4098"`, `"4098"`, `"4097"`, "203.0.113.9", "198.51.100.10", "203.0.113", "198.51.100").Replace(policy)
	state := t.TempDir()
	a := start(t, policy, func(o *Options) { o.StateDir = state })
	b := start(t, swapped)

	_, out := a.kernel.packet(t, engine.Out, toPeer("203.0.113.9"))
	if out.Replace == nil {
		t.Fatal("not sealed")
	}
	wire := append([]byte(nil), out.Replace...)
	arrive := func(b []byte) []byte { return append([]byte(nil), b...) }
	arriving := func(in *engine.Input) { in.Arriving = true }
	r, opened := b.kernel.bytes(t, engine.In, arrive(wire), arriving)
	if r.Verdict != engine.Protect || opened.Replace == nil || opened.Replace[9] != packet.UDP {
		t.Fatalf("%v (%v) % x", r.Verdict, r.Reason, opened.Replace)
	}
	altered := arrive(wire)
	altered[len(altered)-1] ^= 1
	for _, row := range []struct {
		b    []byte
		want string
	}{{arrive(wire), "ipsec-replay"}, {altered, "ipsec-replay"}, {wire[:27], "bad-length"}} {
		if r, _ := b.kernel.bytes(t, engine.In, row.b, arriving); r.Verdict != engine.Discard || r.Reason.String() != row.want {
			t.Errorf("%v (%v), want discard (%s)", r.Verdict, r.Reason, row.want)
		}
	}
	if e := b.waitFor(t, KindIPsec); e.Packet.SPI != 0x1002 || e.Packet.Sequence != 1 {
		t.Errorf("event %+v", e)
	}
	_, all := b.list(t)
	if all[0].Replays != 2 || all[0].Packets != 1 || all[0].ReplayWindow != 64 || all[0].Keys != "manual" || strings.Join(all[0].Rules, " ") != "peer" {
		t.Errorf("inbound SA %+v", all[0])
	}
	k, err := a.WiresharkKeys(t.Context(), "")
	if err != nil || len(k.Rows) != 2 || !strings.Contains(k.Rows[0], "0x"+strings.Repeat("1", 64)) {
		t.Errorf("keys %v, %v", k, err)
	}
	a.waitFor(t, KindKeys)

	// Started again, an SA goes on where it was.
	a.stop()
	<-a.done
	a = start(t, policy, func(o *Options) { o.StateDir = state })
	_, out = a.kernel.packet(t, engine.Out, toPeer("203.0.113.9"))
	if out.Replace == nil || out.Replace[27] != 2 {
		t.Errorf("the number after a restart is not 2: % x", out.Replace[20:28])
	}
}

// Dummy packets go out by themselves, look like others, and are thrown away.
func TestDummies(t *testing.T) {
	text := strings.Replace(protectPolicy(0x1001, keyFile(t, "1"), `local_endpoint = "198.51.100.10"
  dummy_packets = "200/second"`), `"transport"`, `"tunnel"`, 1)
	d := start(t, text)
	deadline := time.Now().Add(20 * time.Second)
	var sent [][]byte
	for len(sent) < 20 && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
		d.kernel.mu.Lock()
		sent = d.kernel.sent
		d.kernel.mu.Unlock()
	}
	sizes := map[int]bool{}
	for i, b := range sent {
		if b[9] != packet.ESP || b[27] != byte(i+1) {
			t.Fatalf("packet %d: % x", i, b[:28])
		}
		sizes[len(b)] = true
	}
	if len(sent) < 20 || len(sizes) < 5 {
		t.Errorf("%d packets of %d sizes", len(sent), len(sizes))
	}
}

func (k *fakeKernel) Status(read func()) QueueStatus {
	read()
	k.mu.Lock()
	defer k.mu.Unlock()
	return QueueStatus{QueueDropped: k.drops, TableRenewed: k.renewed, TableNotRenewed: k.renewed / 2, TableChangedBy: k.changedBy, Flowtables: k.fast, Apart: k.apart, NotApart: k.notApart}
}
