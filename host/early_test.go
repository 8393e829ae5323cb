package host

import (
	"net/netip"
	"testing"
	"time"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/ike"
	"github.com/ipfw/ipfw/packet"
	"github.com/ipfw/ipfw/rules"
)

// earlyDaemon is what of a daemon sealed packets meet, with one rule that
// protects everything under the block "x".
func earlyDaemon(t *testing.T) (*daemon, *fakeKernel) {
	t.Helper()
	k := newFakeKernel()
	d := &daemon{started: time.Now(), ring: newRing(16), firewall: k}
	d.keeper = newKeeper(newNumbers("", nil), d.ring)
	d.keeper.blocks.Store(&blocks{"x": {IPsec: &rules.IPsec{Name: "x", IKE: "p"}, ike: &rules.IKE{Name: "p"}}})
	d.exchange = newExchange(d)
	policy := &engine.Policy{Rules: []engine.Rule{{Name: "all", Action: engine.Protect, With: "x", In: true, Out: true}}}
	d.engine = engine.New(policy, engine.Options{
		SAD: d.keeper.sad, Outbound: d.keeper.outbound, Carries: d.keeper.agreed.carries, Early: d.exchange.early.add,
		IsLocal: func(a netip.Addr) bool { return a == netip.MustParseAddr("10.1.0.1") },
	})
	return d, k
}

// mirrored is the same child as the other side has it.
func mirrored(c ike.ChildSA) *ike.ChildSA {
	c.SPIIn, c.SPIOut = c.SPIOut, c.SPIIn
	c.In, c.Out = ike.Keys{Encryption: make([]byte, 36)}, ike.Keys{Encryption: make([]byte, 36)}
	c.Local, c.Remote = c.Remote, c.Local
	c.LocalTS, c.RemoteTS = c.RemoteTS, c.LocalTS
	c.LocalPort, c.RemotePort = c.RemotePort, c.LocalPort
	return &c
}

// What the responder sends by a new SA before its answer is here waits for that
// answer, native and in UDP, and comes out of the SA when it is installed. An
// SPI that was not proposed has nothing wait for it.
func TestEarly(t *testing.T) {
	for _, udp := range []bool{false, true} {
		d, k := earlyDaemon(t)
		x := d.exchange
		child := testChild(1, "x", prefix("10.1.0.0/16"), prefix("10.2.0.0/16"))
		if udp {
			child.UDPEncap, child.LocalPort, child.RemotePort = true, 4500, 4500
		}
		far := newPairs(esp.NewSAD())
		theirs, err := far.install(mirrored(*child), &rules.IPsec{Name: "x"}, true, 1)
		if err != nil {
			t.Fatal(err)
		}
		inner := testPacket(t, packet.UDP, netip.MustParseAddr("10.2.0.1"), netip.MustParseAddr("10.1.0.1"), 7, 9).Bytes
		sealed, _, fault := theirs.out.Seal(nil, inner, 1)
		if fault != esp.OK {
			t.Fatal(fault)
		}
		arrive := func() engine.Result {
			b := append([]byte(nil), sealed...)
			in := engine.Input{Now: d.now(), Arriving: true}
			if f := packet.Parse(&in.Packet, b, len(b)); f != packet.OK {
				t.Fatal(f)
			}
			if !udp {
				return d.engine.Process(&in, &engine.Output{})
			}
			payload := b[in.Packet.Payload:]
			in.Packet.Bytes = nil // the socket has taken the headers off
			r := d.engine.Unseal(&in, payload, &engine.Unsealed{})
			clear(payload) // the receiver's buffer is used again
			return r
		}
		unknown := engine.ReasonNone
		if r := arrive(); r.Verdict != engine.Discard || r.Reason == engine.ReasonHeld {
			t.Fatalf("udp %v: nobody has proposed that SPI: %v, %v", udp, r.Verdict, r.Reason)
		} else {
			unknown = r.Reason
		}
		expect := ike.Action{Kind: ike.Expect, Child: ike.ChildSA{SPIIn: child.SPIIn, Protocol: ike.ProtoESP, Peer: "p", Name: "x"}}
		x.act([]ike.Action{expect})
		if r := arrive(); r.Verdict != engine.Discard || r.Reason != engine.ReasonHeld {
			t.Fatalf("udp %v: a packet that comes before the answer: %v, %v", udp, r.Verdict, r.Reason)
		}
		x.act([]ike.Action{{Kind: ike.Install, Use: true, Child: *child}})
		x.release()
		if len(k.delivered) != 1 || string(k.delivered[0]) != string(inner) {
			t.Fatalf("udp %v: delivered %x, want %x", udp, k.delivered, inner)
		}
		// The same packet again is a replay, now as ever.
		if r := arrive(); r.Verdict == engine.Protect || r.Reason == unknown {
			t.Errorf("udp %v: the same again: %v, %v", udp, r.Verdict, r.Reason)
		}
		if x.early.opened.Load() != 1 || x.early.lost.Load() != 0 || x.early.packets != 0 || x.early.bytes != 0 {
			t.Errorf("udp %v: %d opened, %d lost, %d left", udp, x.early.opened.Load(), x.early.lost.Load(), x.early.packets)
		}
		x.early.expire(d.now() + earlyTail)
		if x.early.n.Load() != 0 || len(x.early.lines) != 0 {
			t.Errorf("udp %v: an SPI is expected whose SA is there", udp)
		}
	}
}

// What waits is bounded in number, bytes and time, for one SPI and in all, and
// what is not good is counted as lost.
func TestEarlyBounds(t *testing.T) {
	e := newEarly()
	in := engine.Input{Now: 1}
	b := make([]byte, 1000)
	b[3] = 1
	if e.add(&in, b) {
		t.Error("a packet waits for an SPI that was not proposed")
	}
	e.expect(1)
	kept := 0
	for range earlyPackets + 5 {
		if e.add(&in, b) {
			kept++
		}
	}
	if kept != earlyPackets || e.lost.Load() != 5 {
		t.Errorf("%d kept, %d lost", kept, e.lost.Load())
	}
	b[3] = 2
	if e.add(&in, b) {
		t.Error("a packet waits for another SPI than the one proposed")
	}
	if list := e.expire(in.Now + earlyTime); len(list) != 0 || e.packets != 0 || e.bytes != 0 || e.lost.Load() != earlyPackets+5 {
		t.Errorf("after their time %d packets and %d bytes are left, %d lost", e.packets, e.bytes, e.lost.Load())
	}
	e.forget(1)
	for spi := range uint32(1000) {
		e.expect(spi << 8)
		b[2], b[1], b[3] = byte(spi), byte(spi>>8), 0
		for range 10 {
			e.add(&in, b)
		}
	}
	if e.packets > earlyAllPackets || e.bytes > earlyAllBytes || e.packets < 1000 {
		t.Errorf("%d packets, %d bytes in all", e.packets, e.bytes)
	}
	for spi := range uint32(1000) {
		e.forget(spi << 8)
	}
	if e.packets != 0 || e.bytes != 0 || e.n.Load() != 0 {
		t.Errorf("%d packets, %d bytes, %d lines left", e.packets, e.bytes, e.n.Load())
	}
}
