package esp

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"

	"github.com/ipfw/ipfw/packet"
)

// allSuites is every suite that can be written.
func allSuites(t testing.TB) (list []Suite) {
	for _, p := range []Protocol{ESP, AH} {
		for _, e := range append(names(Encryption, func(Algorithm) bool { return true }), "") {
			for _, i := range append(names(Integrity, func(Algorithm) bool { return true }), "") {
				if s, err := NewSuite(p, e, i); err == nil {
					list = append(list, s)
				}
			}
		}
	}
	return list
}

func TestSuites(t *testing.T) {
	// ESP: 4 AEAD, 3 GMAC, and (3 CBC + 3 CTR + 1 null) with 4 HMACs; AH: 4 HMACs, 3 GMACs.
	if n := len(allSuites(t)); n != 4+3+7*4+7 {
		for _, s := range allSuites(t) {
			t.Log(s.Protocol, s)
		}
		t.Errorf("%d suites can be written", n)
	}
}

// TestRoundTrip seals and opens every suite in every mode, every pairing of
// families, with and without ESN and UDP.
func TestRoundTrip(t *testing.T) {
	for _, s := range allSuites(t) {
		for _, mode := range []Mode{Transport, Tunnel} {
			for _, esn := range []bool{false, true} {
				for _, encap := range []Encap{{}, {4500, 4501}} {
					for _, families := range []string{"44", "46", "64", "66"} {
						if mode == Transport && families[0] != families[1] || s.Protocol == AH && encap != (Encap{}) {
							continue
						}
						name := fmt.Sprintf("%s/%s/%s/%s/esn=%t/udp=%d", s.Protocol, s, mode, families, esn, encap.SrcPort)
						c := Config{Suite: s, Mode: mode, ESN: esn, Encap: encap, Src: v4a, Dst: v4b}
						make := udp4
						if families[0] == '6' {
							make = udp6
						}
						if families[1] == '6' {
							c.Src, c.Dst = v6a, v6b
						}
						p := newPair(t, c)
						if esn { // so that the high half counts
							p.out.seq.Store(7<<32 - 3)
							p.in.win.top = 7<<32 - 4
						}
						for size := 60; size < 90; size++ {
							roundTrip(t, name, p, make(size))
						}
						roundTrip(t, name, p, make(1400))
						if got := p.in.Counters(); got.Packets != 31 || got.Bytes == 0 || got.Seq != p.out.Counters().Seq {
							t.Errorf("%s: counters %+v", name, got)
						}
					}
				}
			}
		}
	}
}

func roundTrip(t *testing.T, name string, p *pair, pkt []byte) {
	t.Helper()
	sealed := p.mustSeal(t, pkt)
	if got, want := p.out.SealedLenOf(pkt), len(sealed); got != want {
		t.Fatalf("%s: SealedLenOf says %d, it is %d", name, got, want)
	}
	var q packet.Packet
	if f := packet.Parse(&q, sealed, len(sealed)); f != packet.OK {
		t.Fatalf("%s: sealed packet: %v", name, f)
	}
	c := p.out.Config()
	switch {
	case c.Mode == Tunnel && (q.Src != c.Src || q.Dst != c.Dst):
		t.Fatalf("%s: outer addresses %v -> %v", name, q.Src, q.Dst)
	case c.Encap == Encap{} && (q.Protocol != uint8(p.out.Protocol()) || q.SPI != c.SPI):
		t.Fatalf("%s: protocol %d SPI %#x", name, q.Protocol, q.SPI)
	case c.Encap != Encap{} && (q.Protocol != packet.UDP || q.SrcPort != c.Encap.SrcPort || q.DstPort != c.Encap.DstPort):
		t.Fatalf("%s: protocol %d ports %d %d", name, q.Protocol, q.SrcPort, q.DstPort)
	}
	if sum := sealed[q.Transport : q.Transport+8]; q.Protocol == packet.UDP && q.Version == 6 &&
		packet.Checksum(sealed[q.Transport:], packet.PseudoHeader(q.Src, q.Dst, packet.UDP, len(sealed)-q.Transport)) != 0 {
		t.Fatalf("%s: UDP checksum %x", name, sum)
	}
	if q.Version == 4 && packet.Checksum(sealed[:20], 0) != 0 {
		t.Fatalf("%s: IPv4 checksum", name)
	}
	if hides := p.out.Suite().Encryption.method; hides != 0 && hides != nullCipher && hides != aesGMAC &&
		bytes.Contains(sealed, pkt[len(pkt)-12:]) {
		t.Fatalf("%s: the payload can be read", name)
	}
	if got := p.mustOpen(t, sealed); !bytes.Equal(got, pkt) {
		t.Fatalf("%s:\n got %x\nwant %x", name, got, pkt)
	}
	if _, _, f := p.in.Open(bytes.Clone(sealed), 0); f != Replay {
		t.Fatalf("%s: the same packet again: %v", name, f)
	}
}

// TestPlacement holds where the IPsec header goes among the extension headers.
func TestPlacement(t *testing.T) {
	hop := packet.Extension{Header: packet.HopByHop, Data: []byte{5, 2, 0, 0}}
	dest := packet.Extension{Header: packet.DestOptions, Data: []byte{0x1e, 2, 1, 2}}
	route := packet.Extension{Header: packet.Routing, Data: append([]byte{0, 1, 0, 0, 0, 0}, v6b.AsSlice()...)}
	for _, c := range []struct {
		name  string
		chain []packet.Extension
		front int // bytes that stay in front
	}{
		{"none", nil, 40},
		{"hop", []packet.Extension{hop}, 48},
		{"dest", []packet.Extension{dest}, 40},
		{"hop dest", []packet.Extension{hop, dest}, 48},
		{"hop dest route", []packet.Extension{hop, dest, route}, 80},
		{"hop dest route dest", []packet.Extension{hop, dest, route, dest}, 80},
	} {
		pkt := build(packet.Spec{Src: v6a, Dst: v6b, Protocol: packet.UDP, SrcPort: 1, DstPort: 2, Extensions: c.chain, Payload: []byte("data")})
		for _, s := range []Suite{suite(t, ESP, "aes-128-gcm-16", ""), suite(t, AH, "", "hmac-sha2-256-128")} {
			p := newPair(t, Config{Suite: s, Src: v6a, Dst: v6b})
			sealed := p.mustSeal(t, pkt)
			at, f := find(sealed, false)
			if f != OK || at.at != c.front || at.next != uint8(s.Protocol) {
				t.Errorf("%s %s: at %d protocol %d %v, want %d", s.Protocol, c.name, at.at, at.next, f, c.front)
			}
			if got := p.mustOpen(t, sealed); !bytes.Equal(got, pkt) {
				t.Errorf("%s %s:\n got %x\nwant %x", s.Protocol, c.name, got, pkt)
			}
		}
	}
}

// TestSealFaults: what cannot be sealed is refused, with the right reason.
func TestSealFaults(t *testing.T) {
	frag4 := build(packet.Spec{Src: v4a, Dst: v4b, Protocol: packet.UDP, Fragment: true, Payload: make([]byte, 64)})
	frag6 := build(packet.Spec{Src: v6a, Dst: v6b, Protocol: packet.UDP, Fragment: true, Payload: make([]byte, 64)})
	cut := udp4(100)[:90]
	long := append(udp4(100), 0)
	for _, c := range []struct {
		name              string
		pkt               []byte
		transport, tunnel Fault
	}{
		{"empty", nil, Short, Short},
		{"cut header", udp4(100)[:19], Short, Short},
		{"cut", cut, Short, Short},
		{"longer than it says", long, Malformed, Malformed},
		{"version 5", append([]byte{0x55}, udp4(100)[1:]...), Malformed, Malformed},
		{"short header", append([]byte{0x44}, udp4(100)[1:]...), Malformed, Malformed},
		{"IPv4 fragment", frag4, Fragment, OK},
		{"IPv6 fragment", frag6, Fragment, OK},
		{"largest", udp4(65535), TooBig, TooBig},
		{"fits", udp4(65000), OK, OK},
	} {
		for mode, want := range map[Mode]Fault{Transport: c.transport, Tunnel: c.tunnel} {
			p := newPair(t, Config{Suite: suite(t, ESP, "aes-128-gcm-16", ""), Mode: mode})
			out, _, f := p.out.Seal([]byte("x"), c.pkt, 0)
			if f != want || f != OK && string(out) != "x" {
				t.Errorf("%s %s: %v, want %v", mode, c.name, f, want)
			}
			if f != OK && p.out.Counters().Faults[f] != 1 {
				t.Errorf("%s %s: not counted", mode, c.name)
			}
		}
	}
}

// TestInPlace: sealing in place gives what appending gives, and the UDP payload
// is where it is said to be.
func TestInPlace(t *testing.T) {
	for _, mode := range []Mode{Transport, Tunnel} {
		p := newPair(t, Config{Suite: suite(t, ESP, "aes-128-gcm-16", ""), Mode: mode, Encap: Encap{4500, 4500}})
		pkt := udp4(200)
		head, tail := p.out.Room()
		b, f := p.out.Reserve(3, 0)
		if f != OK {
			t.Fatal(f)
		}
		defer b.Done()
		for range 3 {
			buf := make([]byte, head+len(pkt)+tail)
			copy(buf[head:], pkt)
			sealed, payload, f := b.SealInPlace(buf, head, len(pkt))
			if f != OK || payload != 28 || be.Uint32(sealed[payload:]) != 0x1001 {
				t.Fatalf("%v: %v, payload at %d", mode, f, payload)
			}
			inner, next, _, f := p.in.OpenPayload(sealed[payload:], 0)
			if mode == Tunnel && f == OK {
				inner, f = p.in.Inner(inner, next, 0)
			} else {
				inner = append(bytes.Clone(pkt[:20]), inner...)
			}
			if f != OK || !bytes.Equal(inner, pkt) {
				t.Fatalf("%v: %v %x", mode, f, inner)
			}
		}
		if _, _, f := b.SealInPlace(make([]byte, 1000), 100, 0); f != Short {
			t.Error(f)
		}
		if _, _, f := b.SealInPlace(pkt, 1, len(pkt)); f != NoRoom {
			t.Error(f)
		}
		if _, f := b.Seal(nil, pkt); f != Exhausted {
			t.Errorf("a fourth packet on three numbers: %v", f)
		}
	}
}

// TestTFC: traffic flow padding and dummy packets come out as nothing.
func TestTFC(t *testing.T) {
	for _, s := range []Suite{suite(t, ESP, "aes-256-gcm-16", ""), suite(t, ESP, "aes-256-cbc", "hmac-sha2-256-128")} {
		p := newPair(t, Config{Suite: s, Mode: Tunnel, TFC: 1300})
		size := 0
		for _, n := range []int{60, 700, 1299, 1300} {
			sealed := p.mustSeal(t, udp4(n))
			if size != 0 && len(sealed) != size {
				t.Errorf("%s: %d bytes sealed to %d, others to %d", s, n, len(sealed), size)
			}
			size = len(sealed)
			if got := p.mustOpen(t, sealed); !bytes.Equal(got, udp4(n)) {
				t.Errorf("%s: %d bytes came out as %d", s, n, len(got))
			}
		}
		if got := p.mustOpen(t, p.mustSeal(t, udp4(1400))); !bytes.Equal(got, udp4(1400)) {
			t.Errorf("%s: 1400 bytes came out as %d", s, len(got))
		}
		b, _ := p.out.Reserve(1, 0)
		sealed, f := b.SealDummy(nil, 200)
		b.Done()
		if f != OK || len(sealed) != size {
			t.Errorf("%s: dummy %v of %d bytes, want %d", s, f, len(sealed), size)
		}
		if _, _, f := p.in.Open(sealed, 0); f != Dummy || p.in.Counters().Faults[Dummy] != 1 {
			t.Errorf("%s: dummy: %v", s, f)
		}
	}
}

// TestNAT: a transport mode packet through a NAT has a right checksum inside.
func TestNAT(t *testing.T) {
	outside := netip.MustParseAddr("203.0.113.9")
	for i, proto := range []uint8{packet.TCP, packet.UDP, packet.TCP, packet.UDP} {
		c := Config{Suite: suite(t, ESP, "aes-128-gcm-16", ""), Encap: Encap{4500, 4500}, Src: outside, Dst: v4b}
		if i < 2 {
			c.OriginalSrc, c.OriginalDst = v4a, v4b
		} else {
			c.ThroughNAT = true // and what the addresses were is not known
		}
		p := newPair(t, c)
		sealed := p.mustSeal(t, build(packet.Spec{Src: v4a, Dst: v4b, Protocol: proto, SrcPort: 1, DstPort: 2, Payload: []byte("hello")}))
		copy(sealed[12:], outside.AsSlice())
		want := build(packet.Spec{Src: outside, Dst: v4b, Protocol: proto, SrcPort: 1, DstPort: 2, Payload: []byte("hello")})
		if got := p.mustOpen(t, sealed); !bytes.Equal(got, want) {
			t.Errorf("protocol %d:\n got %x\nwant %x", proto, got, want)
		}
	}
}
