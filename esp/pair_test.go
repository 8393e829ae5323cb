package esp

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/ipfw/ipfw/packet"
)

var (
	v4a, v4b = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2")
	v6a, v6b = netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("2001:db8:2::2")
)

// pair is both ends of one association, of which out seals and in opens.
type pair struct{ out, in *SA }

// newPair makes a pair of SAs of c; what c leaves out is filled in.
func newPair(t testing.TB, c Config) *pair {
	t.Helper()
	if c.SPI == 0 {
		c.SPI = 0x1001
	}
	if c.Mode == 0 {
		c.Mode = Transport
	}
	if !c.Src.IsValid() {
		c.Src, c.Dst = v4a, v4b
	}
	if c.EncryptionKey.Len() == 0 {
		c.EncryptionKey = NewKey(pattern(c.Suite.Encryption.KeyMaterial(), 0x11))
	}
	if c.IntegrityKey.Len() == 0 {
		c.IntegrityKey = NewKey(pattern(c.Suite.Integrity.KeyMaterial(), 0x77))
	}
	var p pair
	var err error
	c.Direction = Out
	if p.out, err = New(c); err != nil {
		t.Fatal(err)
	}
	c.Direction = In
	if p.in, err = New(c); err != nil {
		t.Fatal(err)
	}
	return &p
}

// pattern is n bytes that are not all alike.
func pattern(n int, start byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = start + byte(i*7)
	}
	return b
}

func suite(t testing.TB, p Protocol, enc, mac string) Suite {
	t.Helper()
	s, err := NewSuite(p, enc, mac)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// udp4 is an IPv4 UDP datagram of size bytes in all.
func udp4(size int) []byte {
	return build(packet.Spec{Src: netip.MustParseAddr("10.1.0.5"), Dst: netip.MustParseAddr("10.2.0.9"), Protocol: packet.UDP,
		SrcPort: 4000, DstPort: 5000, DontFragment: true, Payload: pattern(size-28, 1)})
}

// udp6 is an IPv6 UDP datagram of size bytes in all.
func udp6(size int) []byte {
	return build(packet.Spec{Src: netip.MustParseAddr("2001:db8:a::5"), Dst: netip.MustParseAddr("2001:db8:b::9"), Protocol: packet.UDP,
		SrcPort: 4000, DstPort: 5000, Payload: pattern(size-48, 1)})
}

func build(s packet.Spec) []byte {
	if s.Src.Is4() && s.ID == 0 {
		s.ID = 0x1d1d // or AH gives it one
	}
	b, err := packet.Build(s)
	if err != nil {
		panic(err)
	}
	return b
}

// mustSeal seals pkt, and sees to it that what was in front of it stays.
func (p *pair) mustSeal(t testing.TB, pkt []byte) []byte {
	t.Helper()
	before := bytes.Clone(pkt)
	out, _, f := p.out.Seal([]byte("front"), pkt, 0)
	if f != OK {
		t.Fatalf("%v: seal: %v", p.out, f)
	}
	if !bytes.Equal(before, pkt) {
		t.Fatalf("%v: Seal changed what it sealed", p.out)
	}
	if string(out[:5]) != "front" {
		t.Fatalf("%v: Seal changed what it appended to", p.out)
	}
	return out[5:]
}

func (p *pair) mustOpen(t testing.TB, sealed []byte) []byte {
	t.Helper()
	out, _, f := p.in.Open(bytes.Clone(sealed), 0)
	if f != OK {
		t.Fatalf("%v: open: %v", p.in, f)
	}
	return out
}
