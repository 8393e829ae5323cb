package host

import (
	"net/netip"
	"testing"

	"github.com/ipfw/ipfw/engine"
	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/ike"
	"github.com/ipfw/ipfw/packet"
	"github.com/ipfw/ipfw/rules"
)

// Two peers behind one NAT have one address and, by chance, the same port. Each
// gets the answers to what it has sent by its own SA, through rekeys; the flow is
// whose it was first, and what this host opens goes to neither, because nothing
// tells for whom it is (RFC 3948 section 5.2).
func TestPeersBehindOneNAT(t *testing.T) {
	d, _ := earlyDaemon(t)
	d.engine = engine.New(d.engine.Policy(), engine.Options{
		SAD: d.keeper.sad, Outbound: d.keeper.outbound, Carries: d.keeper.agreed.carries,
		IsLocal: func(a netip.Addr) bool { return a == netip.MustParseAddr("198.51.100.1") },
	})
	s := d.keeper.agreed
	here, nat := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("203.0.113.7")
	child := func(id uint64, name string, port uint16) *ike.ChildSA {
		c := testChild(id, "x", prefix("198.51.100.1/32"), prefix("203.0.113.7/32"))
		c.Mode, c.UDPEncap, c.LocalPort, c.RemotePort = ike.Transport, true, 4500, port
		var err error
		if c.RemoteID, err = ike.ParseIdentity(name); err != nil {
			t.Fatal(err)
		}
		return c
	}
	b := &rules.IPsec{Name: "x"}
	install := func(id uint64, name string, port uint16) (ours, theirs *pair) {
		c := child(id, name, port)
		theirs, err := newPairs(esp.NewSAD()).install(mirrored(*c), b, true, 1)
		if err != nil {
			t.Fatal(err)
		}
		if ours, err = s.install(c, b, true, 1); err != nil {
			t.Fatal(err)
		}
		return ours, theirs
	}
	annOurs, ann := install(1, "ann", 4501)
	bobOurs, bob := install(2, "bob", 4502)

	from := func(by *pair, sp uint16) engine.Result {
		inner := testPacket(t, packet.UDP, nat, here, sp, 445).Bytes
		sealed, _, f := by.out.Seal(nil, inner, 1)
		if f != esp.OK {
			t.Fatal(f)
		}
		in := engine.Input{Now: d.now(), Arriving: true}
		if f := packet.Parse(&in.Packet, sealed, len(sealed)); f != packet.OK {
			t.Fatal(f)
		}
		return d.engine.Process(&in, &engine.Output{})
	}
	to := func(dp uint16) (engine.Result, uint32) {
		in := engine.Input{Now: d.now(), Dir: engine.Out, Packet: *testPacket(t, packet.UDP, here, nat, 445, dp)}
		var out engine.Output
		r := d.engine.Process(&in, &out)
		var spi uint32
		if out.Replace != nil {
			var p packet.Packet
			packet.Parse(&p, out.Replace, len(out.Replace))
			payload := out.Replace[p.Payload:]
			spi = uint32(payload[0])<<24 | uint32(payload[1])<<16 | uint32(payload[2])<<8 | uint32(payload[3])
		}
		return r, spi
	}
	for port, peer := range map[uint16]struct{ theirs, ours *pair }{40000: {ann, annOurs}, 40001: {bob, bobOurs}} {
		if r := from(peer.theirs, port); r.Verdict != engine.Protect {
			t.Fatalf("port %d: %v, %v", port, r.Verdict, r.Reason)
		}
		if r, spi := to(port); r.Verdict != engine.Protect || spi != peer.ours.SPIOut {
			t.Errorf("the answer to port %d: %v, %v, SPI %#x, want %#x", port, r.Verdict, r.Reason, spi, peer.ours.SPIOut)
		}
	}
	if r := from(bob, 40000); r.Verdict != engine.Discard || r.Reason != engine.ReasonOtherPeer {
		t.Errorf("bob in ann's flow: %v, %v", r.Verdict, r.Reason)
	}
	if r, spi := to(50000); r.Verdict != engine.Discard || spi != 0 {
		t.Errorf("a flow that this host opens: %v, SPI %#x", r.Verdict, spi)
	}
	// A rekey changes nothing about whose flow it is.
	next, _ := install(3, "ann", 4501)
	s.remove(1)
	if r, spi := to(40000); r.Verdict != engine.Protect || spi != next.SPIOut {
		t.Errorf("after ann's rekey: %v, SPI %#x", r.Verdict, spi)
	}
	// When ann is gone, her flow is nobody's, and bob's packets may take it.
	s.remove(3)
	if r := from(bob, 40000); r.Verdict != engine.Protect {
		t.Errorf("bob where ann was: %v, %v", r.Verdict, r.Reason)
	}
	if r, spi := to(40000); r.Verdict != engine.Protect || spi != bobOurs.SPIOut {
		t.Errorf("the answer to bob: %v, SPI %#x", r.Verdict, spi)
	}
	// With one peer left, its address tells who it is.
	if r, spi := to(50000); r.Verdict != engine.Protect || spi != bobOurs.SPIOut {
		t.Errorf("a flow that this host opens to the only one: %v, SPI %#x", r.Verdict, spi)
	}
	s.remove(2)
	if len(s.who) != 0 || s.sad.Len() != 0 {
		t.Errorf("%d peers, %d SAs are left", len(s.who), s.sad.Len())
	}
}
