package esp

import (
	"net/netip"
	"testing"

	"github.com/ipfw/ipfw/packet"
)

// TestSizes holds the arithmetic against what Seal makes: every suite, mode,
// family and encapsulation, every size of packet up to 1,600 bytes and a few
// beyond; and MaxInner against its own definition for every MTU.
func TestSizes(t *testing.T) {
	for _, s := range allSuites(t) {
		for _, mode := range []Mode{Transport, Tunnel} {
			for _, c := range []Config{
				{Src: v4a, Dst: v4b}, {Src: v6a, Dst: v6b}, {Src: v4a, Dst: v4b, AHAlign8: true},
				{Src: v4a, Dst: v4b, Encap: Encap{4500, 4500}}, {Src: v6a, Dst: v6b, Encap: Encap{4500, 4500}},
				{Src: v4a, Dst: v4b, TFC: 600},
			} {
				if s.Protocol == AH && (c.Encap != Encap{} || c.TFC != 0) || s.Protocol == ESP && c.AHAlign8 || mode == Transport && c.TFC != 0 {
					continue
				}
				c.Suite, c.Mode = s, mode
				sa := newPair(t, c).out
				pkt, buf := udp4(2000), make([]byte, 0, 70000)
				if c.Dst.Is6() {
					pkt = udp6(2000)
				}
				var lens [1602]int
				for n := 28; n <= 1601; n++ {
					lens[n] = sa.SealedLen(n)
				}
				step := 1
				if s.Integrity.method != hmacSHA256 && s.Integrity.method != 0 {
					step = 7 // the length of the ICV is all that differs
				}
				for n := 48; n <= 1601; n += step {
					resizeTest(pkt, n)
					out, _, f := sa.Seal(buf, pkt[:n], 0)
					if f != OK || len(out) != lens[n] || sa.SealedLenOf(pkt[:n]) != lens[n] {
						t.Fatalf("%v: %d bytes are %d when sealed (%v); SealedLen %d, SealedLenOf %d", sa, n, len(out), f, lens[n], sa.SealedLenOf(pkt[:n]))
					}
				}
				for mtu := 200; mtu < 1600; mtu++ {
					n := sa.MaxInner(mtu)
					if n > 1600 || n > 28 && lens[n] > mtu || n >= 28 && lens[n+1] <= mtu || n == 0 && lens[28] <= mtu {
						t.Fatalf("%v: MaxInner(%d) = %d", sa, mtu, n)
					}
				}
			}
		}
	}
}

// resizeTest makes the IP header of pkt say that it is n bytes long.
func resizeTest(pkt []byte, n int) {
	if pkt[0]>>4 == 4 {
		be.PutUint16(pkt[2:], uint16(n))
	} else {
		be.PutUint16(pkt[4:], uint16(n-40))
	}
}

// TestKnownSizes: a few that people know by heart.
func TestKnownSizes(t *testing.T) {
	for _, c := range []struct {
		enc, mac    string
		mode        Mode
		v6, udp     bool
		inner4, mss int
	}{
		{"aes-128-gcm-16", "", Tunnel, false, false, 1446, 1406},
		{"aes-128-gcm-16", "", Tunnel, false, true, 1438, 1398},
		{"aes-128-gcm-16", "", Tunnel, true, false, 1426, 1386},
		{"aes-128-gcm-16", "", Transport, false, false, 1466, 1426},
		{"aes-256-cbc", "hmac-sha2-256-128", Tunnel, false, false, 1438, 1398},
		{"aes-256-cbc", "hmac-sha2-256-128", Tunnel, false, true, 1422, 1382},
	} {
		conf := Config{Suite: suite(t, ESP, c.enc, c.mac), Mode: c.mode, Src: v4a, Dst: v4b}
		if c.v6 {
			conf.Src, conf.Dst = v6a, v6b
		}
		if c.udp {
			conf.Encap = Encap{4500, 4500}
		}
		sa := newPair(t, conf).out
		if n, mss := sa.MaxInner(1500), sa.MSS(1500, false); n != c.inner4 || mss != c.mss {
			t.Errorf("%v udp=%t: %d bytes inside 1500, MSS %d; want %d, %d", sa, c.udp, n, mss, c.inner4, c.mss)
		}
	}
	if sa := newPair(t, Config{Suite: suite(t, ESP, "aes-128-gcm-16", ""), Mode: Tunnel}).out; sa.MaxInner(40) != 0 || sa.MSS(100, true) != 0 || sa.MaxInner(0) != 0 {
		t.Error("something fits where nothing does")
	}
}

// TestPathMTU: an ICMP error is believed only if it can be true.
func TestPathMTU(t *testing.T) {
	const minute = int64(60e9)
	quote := func(change func(*packet.Packet)) *packet.Packet {
		q := &packet.Packet{Version: 4, Src: v4a, Dst: v4b, Protocol: packet.ESP, HasSPI: true, SPI: 0x1001, SPISeq: 5, Len: 1480}
		if change != nil {
			change(q)
		}
		return q
	}
	for _, c := range []struct {
		name string
		q    *packet.Packet
		mtu  int
		want int
	}{
		{"good", quote(nil), 1400, 1400},
		{"old router", quote(nil), 0, 1006},
		{"old router, long packet", quote(func(q *packet.Packet) { q.Len = 1500 }), 0, 1492},
		{"not ours", quote(func(q *packet.Packet) { q.Src = v4b }), 1400, 0},
		{"not to the peer", quote(func(q *packet.Packet) { q.Dst = v4a }), 1400, 0},
		{"another SPI", quote(func(q *packet.Packet) { q.SPI++ }), 1400, 0},
		{"no SPI", quote(func(q *packet.Packet) { q.HasSPI = false }), 1400, 0},
		{"another protocol", quote(func(q *packet.Packet) { q.Protocol = packet.UDP }), 1400, 0},
		{"not sent yet", quote(func(q *packet.Packet) { q.SPISeq = 100 }), 1400, 0},
		{"would have passed", quote(nil), 1480, 0},
		{"larger than before", quote(func(q *packet.Packet) { q.Len = 9000 }), 1500, 0},
		{"least", quote(nil), 576, 576},
		{"too small to be true", quote(nil), 575, 0},
		{"sent too long ago", quote(func(q *packet.Packet) { q.SPISeq = 0 }), 1400, 0},
		{"IPv6 too small", quote(func(q *packet.Packet) { q.Version, q.Src, q.Dst = 6, v6a, v6b }), 1279, 0},
		{"IPv6 least", quote(func(q *packet.Packet) { q.Version, q.Src, q.Dst = 6, v6a, v6b }), 1280, 1280},
		{"IPv6 none", quote(func(q *packet.Packet) { q.Version, q.Src, q.Dst = 6, v6a, v6b }), 0, 0},
	} {
		conf := Config{Suite: suite(t, ESP, "aes-128-gcm-16", ""), Src: v4a, Dst: v4b}
		if c.q.Version == 6 {
			conf.Src, conf.Dst = v6a, v6b
		}
		sa := newPair(t, conf).out
		sa.seq.Store(7)
		ok := sa.PathReport(c.q, c.mtu, 1500, minute)
		if ok != (c.want != 0) || sa.PathMTU(minute) != c.want {
			t.Errorf("%s: %t %d, want %d", c.name, ok, sa.PathMTU(minute), c.want)
		}
		if got := sa.PathMTU(11 * minute); got != 0 {
			t.Errorf("%s: %d after ten minutes", c.name, got)
		}
		if ok && sa.PathReport(c.q, c.want, 1500, 2*minute) {
			t.Errorf("%s: the same again is news", c.name)
		}
	}
	// In UDP encapsulation too it is the SPI and the sequence number that count.
	sa := newPair(t, Config{Suite: suite(t, ESP, "aes-128-gcm-16", ""), Encap: Encap{4500, 4501}}).out
	sa.seq.Store(7)
	in := func(sport, dport uint16, esp ...byte) *packet.Packet {
		b, err := packet.Build(packet.Spec{Src: v4a, Dst: v4b, Protocol: packet.UDP, SrcPort: sport, DstPort: dport, Payload: esp})
		if err != nil {
			t.Fatal(err)
		}
		q := new(packet.Packet)
		if f := packet.Parse(q, b, len(b)); f != packet.OK {
			t.Fatal(f)
		}
		q.Len = 1480
		return q
	}
	for name, q := range map[string]*packet.Packet{
		"ports alone":    in(4500, 4501),
		"SPI alone":      in(4500, 4501, 0, 0, 0x10, 1),
		"another SPI":    in(4500, 4501, 0, 0, 0x10, 2, 0, 0, 0, 5),
		"not sent yet":   in(4500, 4501, 0, 0, 0x10, 1, 0, 0, 0, 8),
		"another port":   in(4500, 53, 0, 0, 0x10, 1, 0, 0, 0, 5),
		"an IKE message": in(4500, 4501, 0, 0, 0, 0, 0, 0, 0, 5),
	} {
		if _, sent := sa.Sent(q); sent || sa.PathReport(q, 1400, 1500, 0) {
			t.Errorf("in UDP, %s: believed", name)
		}
	}
	if !sa.PathReport(in(4500, 4501, 0, 0, 0x10, 1, 0, 0, 0, 5), 1400, 1500, 0) || sa.PathMTU(0) != 1400 {
		t.Error("in UDP, a packet that was sent: not believed")
	}
}

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		b    []byte
		want Datagram
	}{
		{nil, Garbage}, {[]byte{0xff}, NATKeepalive}, {[]byte{0xfe}, Garbage}, {[]byte{0xff, 0xff}, Garbage},
		{[]byte{0, 0, 0, 0}, Garbage}, {[]byte{0, 0, 0, 0, 1}, IKEMessage}, {make([]byte, 32), IKEMessage},
		{[]byte{0, 0, 1, 0, 0, 0, 0, 1}, ESPPacket}, {[]byte{0, 0, 1, 0, 0, 0, 0}, Garbage},
	} {
		if got := Classify(c.b); got != c.want {
			t.Errorf("%x: %d, want %d", c.b, got, c.want)
		}
	}
}

// TestMove: an SA whose addresses change seals to the new ones and takes from
// them.
func TestMove(t *testing.T) {
	p := newPair(t, Config{Suite: suite(t, ESP, "aes-128-gcm-16", ""), Mode: Tunnel})
	d := NewSAD()
	if err := d.Insert(p.in); err != nil {
		t.Fatal(err)
	}
	p.out.Move(v6a, v6b, Encap{4500, 4501})
	sealed := p.mustSeal(t, udp4(100))
	if _, _, _, f := d.Open(sealed, 0); f != UnknownSPI {
		t.Errorf("to an address that is not the SA's: %v", f)
	}
	p.in.Move(netip.Addr{}, v6b, Encap{4501, 4500})
	if _, _, _, f := d.Open(sealed, 0); f != OK {
		t.Error(f)
	}
}
