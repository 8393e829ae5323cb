package engine

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/ipfw/ipfw/esp"
	"github.com/ipfw/ipfw/packet"
)

// Two hosts with one policy, tied by an SA each way:
//
//	a 10.0.0.5  == SA "lan" ==  b 10.0.0.7
type hosts struct {
	testing.TB
	a, b *Engine
	u    Unsealed // of b's socket
	last Input    // that u was given
	// How many packets came with the one before, and were read because of
	// what that one was.
	plain int
}

const (
	hostA = "10.0.0.5"
	hostB = "10.0.0.7"
)

func lanPolicy(t testing.TB) *Policy {
	return &Policy{Rules: []Rule{
		{Name: "lan", Action: Protect, With: "lan", In: true, Out: true, Selector: Selector{Local: addrs(t, "10.0.0.0/24"), Remote: addrs(t, "10.0.0.0/24")}},
		{Name: "other", Action: Protect, With: "other", In: true, Out: true, Selector: Selector{Remote: addrs(t, "10.0.9.0/24")}},
	}}
}

func newHosts(t testing.TB, mode esp.Mode) *hosts { return newHostsOf(t, esp.ESP, mode) }

func newHostsOf(t testing.TB, proto esp.Protocol, mode esp.Mode) *hosts {
	encryption, integrity := "aes-128-gcm-16", ""
	if proto == esp.AH {
		encryption, integrity = "", "hmac-sha2-256-128"
	}
	suite, err := esp.NewSuite(proto, encryption, integrity)
	if err != nil {
		t.Fatal(err)
	}
	encryptionKey, integrityKey, err := suite.Keys(bytes.Repeat([]byte{7}, suite.KeyMaterial()))
	if err != nil {
		t.Fatal(err)
	}
	end := func(name string, local, remote string, in, out uint32) *Engine {
		sad := esp.NewSAD()
		var sealer *esp.SA
		for _, d := range []esp.Direction{esp.In, esp.Out} {
			c := esp.Config{SPI: in, Direction: d, Mode: mode, Suite: suite, EncryptionKey: encryptionKey, IntegrityKey: integrityKey,
				Src: netip.MustParseAddr(remote), Dst: netip.MustParseAddr(local), Owner: esp.Owner{Name: "lan"}}
			if d == esp.Out {
				c.SPI, c.Src, c.Dst = out, c.Dst, c.Src
			}
			sa, err := esp.New(c)
			if err != nil {
				t.Fatal(err)
			}
			if err := sad.Insert(sa); err != nil {
				t.Fatal(err)
			}
			if d == esp.Out {
				sealer = sa
			}
		}
		return New(lanPolicy(t), Options{SAD: sad,
			Outbound: func(r *Rule, _ *Input) *esp.SA {
				if r.With == "lan" {
					return sealer
				}
				return nil
			},
			IsLocal: func(a netip.Addr) bool { return a == netip.MustParseAddr(local) },
		})
	}
	return &hosts{TB: t, a: end("a", hostA, hostB, 0x1001, 0x1002), b: end("b", hostB, hostA, 0x1002, 0x1001)}
}

// wire gives what leaves a in place of a packet.
func (h *hosts) wire(in *Input, want Verdict) [][]byte {
	h.Helper()
	var out Output
	if r := h.a.Process(in, &out); r.Verdict != want {
		h.Fatalf("leaving: %v (%v), want %v", r.Verdict, r.Reason, want)
	}
	if out.Replace != nil {
		return [][]byte{bytes.Clone(out.Replace)}
	}
	var all [][]byte
	for _, b := range out.Send {
		all = append(all, bytes.Clone(b))
	}
	return all
}

// arrive gives what b makes of a packet from the wire.
func (h *hosts) arrive(b []byte) (Result, []byte) {
	h.Helper()
	in := Input{Arriving: true, Now: second}
	if f := packet.Parse(&in.Packet, b, len(b)); f != packet.OK {
		h.Fatal(f)
	}
	var out Output
	r := h.b.Process(&in, &out)
	return r, out.Replace
}

func (h *hosts) packet(line string, changes ...func(*packet.Spec)) Input {
	return (&bench{TB: h, now: second}).input(line, changes...)
}

func TestSealAndOpen(t *testing.T) {
	for _, mode := range []esp.Mode{esp.Transport, esp.Tunnel} {
		h := newHosts(t, mode)
		in := h.packet("out tcp 10.0.0.5:40000 -> 10.0.0.7:445", data(0))
		clear := bytes.Clone(in.Packet.Bytes)
		sent := h.wire(&in, Protect)
		if len(sent) != 1 || bytes.Contains(sent[0], clear[20:]) || sent[0][9] != packet.ESP {
			t.Fatalf("%v: %d packets, or clear ones", mode, len(sent))
		}
		r, opened := h.arrive(bytes.Clone(sent[0]))
		if r.Verdict != Protect || !bytes.Equal(opened, clear) {
			t.Fatalf("%v: %v (%v), opened %x, want %x", mode, r.Verdict, r.Reason, opened, clear)
		}
		if r, opened := h.arrive(sent[0]); r.Verdict != Discard || r.Reason != reasonOfESP(esp.Replay) || opened != nil {
			t.Errorf("%v: a replay: %v (%v)", mode, r.Verdict, r.Reason)
		}
	}
}

func TestSuperPacketIsCutAndSealed(t *testing.T) {
	for _, mode := range []esp.Mode{esp.Transport, esp.Tunnel} {
		h := newHosts(t, mode)
		syn := h.packet("out tcp 10.0.0.5:40000 -> 10.0.0.7:445")
		for _, b := range h.wire(&syn, Protect) {
			h.arrive(b)
		}
		in := h.packet("out tcp 10.0.0.5:40000 -> 10.0.0.7:445", flags(packet.ACK), data(60000))
		in.MTU = 1500
		sent := h.wire(&in, Protect)
		if len(sent) < 60000/1460 {
			t.Fatalf("%v: %d packets of 60,000 bytes", mode, len(sent))
		}
		total := 0
		for _, b := range sent {
			if len(b) > 1500 {
				t.Errorf("%v: %d bytes on the wire", mode, len(b))
			}
			r, opened := h.arrive(b)
			if r.Verdict != Protect {
				t.Fatalf("%v: %v (%v)", mode, r.Verdict, r.Reason)
			}
			total += len(opened) - 40
		}
		if total != 60000 {
			t.Errorf("%v: %d bytes came out", mode, total)
		}
	}
}

func TestTooBigToProtect(t *testing.T) {
	h := newHosts(t, esp.Transport)
	big := func(df bool) Input {
		return h.packet("out udp 10.0.0.5:40000 -> 10.0.0.7:445", data(1470), func(s *packet.Spec) { s.DontFragment = df })
	}
	in := big(true)
	var out Output
	if r := h.a.Process(&in, &out); r.Verdict != Discard || r.Reason != ReasonTooBig || r.TellMTU < 1400 || r.TellMTU > 1480 || len(out.Send) != 0 {
		t.Errorf("with DF: %v (%v), MTU %d", r.Verdict, r.Reason, r.TellMTU)
	}
	in = big(false)
	sent := h.wire(&in, Protect)
	if len(sent) != 2 {
		t.Fatalf("without DF: %d packets, want 2 fragments", len(sent))
	}
	for _, b := range sent {
		var p packet.Packet
		if f := packet.Parse(&p, b, len(b)); f != packet.OK || !p.Fragment || len(b) > 1500 {
			t.Errorf("%v, fragment %v, %d bytes", f, p.Fragment, len(b))
		}
	}
	if r, _ := h.arrive(sent[0]); r.Verdict != Discard || r.Reason != reasonOfESP(esp.Fragment) {
		t.Errorf("a fragment of ESP: %v (%v)", r.Verdict, r.Reason)
	}
}

func TestNothingLeavesWithoutAnSA(t *testing.T) {
	h := newHosts(t, esp.Transport)
	in := h.packet("out tcp 10.0.0.5:40000 -> 10.0.9.1:445")
	var out Output
	if r := h.a.Process(&in, &out); r.Verdict != Discard || r.Reason != ReasonNoSA || out.Replace != nil || len(out.Send) != 0 {
		t.Errorf("%v (%v)", r.Verdict, r.Reason)
	}
}

// What comes out of an SA must be what the SA is for (RFC 4301 section 5.2).
func TestOpenedPacketMeetsPolicy(t *testing.T) {
	for _, proto := range []esp.Protocol{esp.ESP, esp.AH} {
		h := newHostsOf(t, proto, esp.Tunnel)
		loose := lanPolicy(t)
		loose.Rules[0].Local, loose.Rules[0].Remote = nil, nil
		h.a.Reload(loose) // a peer that puts anything into its tunnel
		for _, row := range []struct {
			reason Reason
			line   string
		}{
			{ReasonWrongSA, "out tcp 10.0.9.5:40000 -> 10.0.0.7:445"},
			{ReasonDefault, "out tcp 192.0.2.1:40000 -> 10.0.0.7:445"},
			{ReasonDefault, "out tcp 10.0.0.5:40000 -> 10.0.0.8:445"}, // not ours: it would be forwarded
		} {
			in := h.packet(row.line)
			for _, b := range h.wire(&in, Protect) {
				if r, opened := h.arrive(b); r.Verdict != Discard || r.Reason != row.reason || opened != nil {
					t.Errorf("%s, %s: %v (%v), want %v", proto, row.line, r.Verdict, r.Reason, row.reason)
				}
			}
		}
	}
}

// Every bit of a sealed packet matters, and none of the flips passes.
func TestFlippedBits(t *testing.T) {
	h := newHosts(t, esp.Transport)
	in := h.packet("out tcp 10.0.0.5:40000 -> 10.0.0.7:445")
	sent := h.wire(&in, Protect)[0]
	for bit := 20 * 8; bit < len(sent)*8; bit++ { // behind the IP header
		b := bytes.Clone(sent)
		b[bit/8] ^= 1 << (bit % 8)
		if b[20]|b[21]|b[22]|b[23] == 0 {
			continue // SPI 0 is no packet
		}
		if r, opened := h.arrive(b); r.Verdict != Discard || opened != nil {
			t.Fatalf("bit %d: %v (%v)", bit, r.Verdict, r.Reason)
		}
	}
	if r, _ := h.arrive(sent); r.Verdict != Protect {
		t.Errorf("after all that the packet itself: %v (%v)", r.Verdict, r.Reason)
	}
}

func TestEncapsulatedIKEGoesOn(t *testing.T) {
	h := newHosts(t, esp.Transport)
	for _, row := range []struct {
		verdict Verdict
		reason  Reason
		payload []byte
	}{
		{Bypass, ReasonIKE, append(make([]byte, 4), 1, 2, 3, 4)},
		{Discard, ReasonKeepalive, []byte{0xff}},
		{Discard, reasonOfESP(esp.UnknownSPI), append([]byte{0, 0, 0x77, 0x77}, make([]byte, 60)...)},
	} {
		in := h.packet("in udp 10.0.0.5:4500 -> 10.0.0.7:4500", func(s *packet.Spec) { s.Payload = row.payload })
		in.Arriving = true
		var out Output
		if r := h.b.Process(&in, &out); r.Verdict != row.verdict || r.Reason != row.reason {
			t.Errorf("% x: %v (%v), want %v (%v)", row.payload, r.Verdict, r.Reason, row.verdict, row.reason)
		}
	}
}

// IPv6 is not fragmented on its way, unless it has come in pieces: the kernel
// puts them together before the engine sees them.
func TestForwardedIPv6(t *testing.T) {
	h := newHosts(t, esp.Tunnel)
	h.a.Reload(&Policy{Rules: []Rule{{Name: "lan", Action: Protect, With: "lan", Forward: true}}})
	try := func(payload, mtu, inMTU int) Result {
		in := h.packet("forward udp [2001:db8::1]:40000 -> [2001:db8::2]:53", data(payload))
		in.MTU, in.InMTU = mtu, inMTU
		var out Output
		r := h.a.Process(&in, &out)
		for _, b := range out.Send {
			if len(b) > mtu {
				t.Errorf("%d bytes of %d leave as %d", payload, mtu, len(b))
			}
		}
		return r
	}
	if r := try(3000, 1500, 1500); r.Verdict != Protect {
		t.Errorf("longer than the link it came by: %v (%v)", r.Verdict, r.Reason)
	}
	if r := try(1200, 1280, 1500); r.Verdict != Protect {
		t.Errorf("of 1,248 bytes, which everybody may send: %v (%v)", r.Verdict, r.Reason)
	}
	if r := try(1440, 1500, 1500); r.Reason != ReasonTooBig || r.TellMTU < 1400 {
		t.Errorf("of 1,488 bytes: %v (%v), MTU %d", r.Verdict, r.Reason, r.TellMTU)
	}
	if r := try(1440, 1500, 1500); r.Verdict != Protect {
		t.Errorf("again, after its sender was told: %v (%v)", r.Verdict, r.Reason)
	}
	h = newHosts(t, esp.Tunnel)
	h.a.Reload(&Policy{Rules: []Rule{{Name: "lan", Action: Protect, With: "lan", Forward: true}}})
	if r := try(1250, 1280, 1500); r.Reason != ReasonTooBig || r.TellMTU != 1280 {
		t.Errorf("by a link of 1,280 bytes: %v (%v), MTU %d", r.Verdict, r.Reason, r.TellMTU)
	}
}

// What an IPv6 packet is cut into before it is sealed comes out as fragments
// that make it whole again, and only under the SA that the first came by.
func TestPiecesOfIPv6(t *testing.T) {
	h := newHosts(t, esp.Tunnel)
	policy := &Policy{Rules: []Rule{{Name: "lan", Action: Protect, With: "lan", In: true, Out: true, Forward: true}}}
	h.a.Reload(policy)
	h.b.Reload(policy) // which sends it on
	in := h.packet("out udp [2001:db8::1]:40000 -> [2001:db8::2]:53", data(3000))
	want := bytes.Clone(in.Packet.Bytes[40:])
	sent := h.wire(&in, Protect)
	if len(sent) < 3 {
		t.Fatalf("%d packets of 3,000 bytes", len(sent))
	}
	var got []byte
	for i, b := range sent {
		var out Output
		in := Input{Arriving: true, Now: second}
		packet.Parse(&in.Packet, b, len(b))
		r := h.b.Process(&in, &out)
		if last := i == len(sent)-1; (r.Verdict == Protect) != last || !last && r.Reason != ReasonFragmentHeld || len(b) > 1500 {
			t.Fatalf("%d bytes: %v (%v)", len(b), r.Verdict, r.Reason)
		}
		for _, piece := range out.Pieces {
			got = append(got, piece[48:]...)
		}
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the pieces make %d bytes that are not the %d that were sent", len(got), len(want))
	}

	e := New(&Policy{Rules: []Rule{
		{Name: "a", Action: Protect, With: "a", In: true, Selector: Selector{RemotePorts: []PortRange{{First: 40000, Last: 40000}}}},
	}}, Options{})
	for i, row := range []struct {
		sa   string
		want Verdict
	}{{"a", Protect}, {"b", Discard}, {"", Discard}, {"a", Protect}} {
		offset := 0
		if i > 0 {
			offset = 64
		}
		in := h.packet("in udp 10.0.0.7:40000 -> 10.0.0.5:53", data(56), func(s *packet.Spec) {
			s.Fragment, s.ID, s.FragOffset = true, 7, offset
			if offset > 0 {
				s.Payload = make([]byte, 64)
			}
		})
		in.SA = row.sa
		if r := e.Judge(&in); r.Verdict != row.want {
			t.Errorf("piece %d under SA %q: %v (%v), want %v", i, row.sa, r.Verdict, r.Reason, row.want)
		}
	}
}
