package esp

import (
	"bytes"
	"testing"

	"github.com/ipfw/ipfw/packet"
)

// TestTamper flips every bit of a sealed packet, one at a time, for every
// suite. What the ICV covers must give exactly one counted fault and change
// nothing else: the packet itself is still accepted afterwards. What it does
// not cover (the outer header with ESP, mutable fields with AH) may pass, with
// the same content.
func TestTamper(t *testing.T) {
	for _, s := range allSuites(t) {
		for _, mode := range []Mode{Transport, Tunnel} {
			for _, v6 := range []bool{false, true} {
				c := Config{Suite: s, Mode: mode, Src: v4a, Dst: v4b, ESN: v6, ReplayWindow: 64}
				spec := packet.Spec{Src: v4a, Dst: v4b, Protocol: packet.UDP, SrcPort: 1, DstPort: 2, Payload: []byte("payload")}
				if v6 {
					c.Src, c.Dst, spec.Src, spec.Dst = v6a, v6b, v6a, v6b
				}
				p := newPair(t, c)
				d := NewSAD()
				if err := d.Insert(p.in); err != nil {
					t.Fatal(err)
				}
				pkt := build(spec)
				sealed := p.mustSeal(t, pkt)
				front := 20
				if v6 {
					front = 40
				}
				tamper(t, d, p.in, sealed, pkt, front)
				if out, _, _, f := d.Open(bytes.Clone(sealed), 0); f != OK || !bytes.Equal(out, pkt) {
					t.Fatalf("%v: the packet itself after all: %v", p.in, f)
				}
			}
		}
	}
}

func tamper(t *testing.T, d *SAD, sa *SA, sealed, pkt []byte, front int) {
	t.Helper()
	buf := make([]byte, len(sealed))
	for bit := range len(sealed) * 8 {
		copy(buf, sealed)
		buf[bit/8] ^= 1 << (bit % 8)
		before := faultsOf(d, sa)
		seq, packets, octets := sa.win.Top(), sa.count.Load(), sa.bytes.Load()
		out, _, _, f := d.Open(buf, 0)
		covered := bit/8 >= front || sa.Protocol() == AH && !mutableByte(sealed, bit/8)
		if f == OK {
			// Nothing covered may pass. What passes is taken back, so that
			// the next flip does not meet a replay.
			if covered {
				t.Fatalf("%v: bit %d of byte %d can be flipped", sa, bit%8, bit/8)
			}
			if sa.Mode() == Tunnel && !bytes.Equal(out, pkt) || !bytes.Equal(out[front:], pkt[front:]) {
				t.Fatalf("%v: bit %d of byte %d changes the content to %x", sa, bit%8, bit/8, out)
			}
			sa.win.init(64, sa.cfg.ESN, false, 0)
			sa.win.top = seq
			sa.count.Store(packets)
			sa.bytes.Store(octets)
			continue
		}
		after := faultsOf(d, sa)
		if before[f]++; before != after {
			t.Fatalf("%v: bit %d of byte %d: %v, counted %v", sa, bit%8, bit/8, f, after)
		}
		if out != nil {
			t.Fatalf("%v: %v with bytes", sa, f)
		}
		// Not-ECT inside and CE outside is found in an authentic packet.
		if f == BadECN && sa.Mode() == Tunnel && !covered {
			sa.win.init(64, sa.cfg.ESN, false, 0)
			sa.win.top = seq
			sa.count.Store(packets)
			sa.bytes.Store(octets)
		}
		if sa.win.Top() != seq || sa.count.Load() != packets || sa.bytes.Load() != octets {
			t.Fatalf("%v: bit %d of byte %d: %v, and the SA has changed", sa, bit%8, bit/8, f)
		}
	}
}

// faultsOf is what SAD and SA have counted together.
func faultsOf(d *SAD, sa *SA) [Faults]uint64 {
	list := d.Faults()
	for i, n := range sa.Counters().Faults {
		list[i] += n
	}
	return list
}

// mutableByte says which bytes of a plain header AH does not cover.
func mutableByte(pkt []byte, i int) bool {
	if pkt[0]>>4 == 4 {
		return i == 1 || i == 6 || i == 7 || i == 8 || i == 10 || i == 11
	}
	return i < 4 || i == 7
}

// TestWrongKey: a packet of another key, another SPI's owner, or cut short, is
// one fault of the right name.
func TestWrongKey(t *testing.T) {
	for _, s := range allSuites(t) {
		p := newPair(t, Config{Suite: s})
		c := Config{Suite: s}
		if n := s.Encryption.KeyMaterial(); n > 0 {
			c.EncryptionKey = NewKey(pattern(n, 0x12))
		}
		if n := s.Integrity.KeyMaterial(); n > 0 {
			c.IntegrityKey = NewKey(pattern(n, 0x78))
		}
		q := newPair(t, c)
		sealed := p.mustSeal(t, udp4(100))
		if _, _, f := q.in.Open(bytes.Clone(sealed), 0); f != Unauthentic {
			t.Errorf("%s: another key: %v", s, f)
		}
		for n := range sealed {
			if _, _, f := p.in.Open(bytes.Clone(sealed[:n]), 0); f != Short {
				t.Fatalf("%s: %d of %d bytes: %v", s, n, len(sealed), f)
			}
			cut := bytes.Clone(sealed[:n])
			if n < 20 {
				continue
			}
			resizeTest(cut, n)
			if _, _, f := p.in.Open(cut, 0); f != Short && f != Unauthentic && f != Malformed {
				t.Fatalf("%s: cut to %d of %d bytes: %v", s, n, len(sealed), f)
			}
		}
		if got := p.in.Counters(); got.Packets != 0 || got.Seq != 0 {
			t.Errorf("%s: forgeries counted as packets: %+v", s, got)
		}
	}
}

// TestBadContent: authentic packets whose content is wrong; each one is counted
// as a packet and as its fault.
func TestBadContent(t *testing.T) {
	inner := udp4(60)
	for _, c := range []struct {
		name string
		mode Mode
		body []byte // with its trailer
		want Fault
	}{
		{"right", Tunnel, append(bytes.Clone(inner), 1, 2, 2, 4), OK},
		{"no padding", Tunnel, append(udp4(62), 0, 4), OK},
		{"padding from 0", Tunnel, append(bytes.Clone(inner), 0, 1, 2, 4), BadPadding},
		{"padding of zeros", Tunnel, append(bytes.Clone(inner), 0, 0, 2, 4), BadPadding},
		{"padding longer than all", Transport, []byte{1, 2, 3, 17}, BadPadding},
		{"padding is all", Transport, []byte{1, 2, 2, 17}, OK},
		{"dummy", Tunnel, append(bytes.Clone(inner), 1, 2, 2, 59), Dummy},
		{"next header TCP in a tunnel", Tunnel, append(bytes.Clone(inner), 1, 2, 2, 6), BadPayload},
		{"IPv4 called IPv6", Tunnel, append(bytes.Clone(inner), 1, 2, 2, 41), BadPayload},
		{"cut inner packet", Tunnel, append(bytes.Clone(inner[:58]), 0, 4), BadPayload},
		{"nothing in a tunnel", Tunnel, []byte{1, 2, 2, 4}, BadPayload},
		{"TFC padding", Tunnel, append(append(bytes.Clone(inner), make([]byte, 100)...), 1, 2, 2, 4), OK},
	} {
		p := newPair(t, Config{Suite: suite(t, ESP, "aes-128-gcm-16", ""), Mode: c.mode})
		esp := sealRaw(p.out, 1, c.body)
		pkt := build(packet.Spec{Src: v4a, Dst: v4b, Protocol: 99, Payload: esp})
		resize(pkt, place{field: 9}, 50)
		_, _, f := p.in.Open(pkt, 0)
		got := p.in.Counters()
		if f != c.want || got.Packets != 1 || f != OK && got.Faults[f] != 1 {
			t.Errorf("%s: %v, want %v; %+v", c.name, f, c.want, got)
		}
	}
}

// sealRaw makes an ESP packet around body, which has its trailer already.
func sealRaw(sa *SA, seq uint64, body []byte) []byte {
	c := sa.crypt
	b := make([]byte, espHeader+c.iv+len(body)+c.icv)
	be.PutUint32(b, sa.SPI())
	be.PutUint32(b[4:], uint32(seq))
	copy(b[espHeader+c.iv:], body)
	s := c.get()
	c.seal(s, b, seq)
	c.put(s)
	return b
}

// TestCBCIVs: the IVs of CBC do not repeat, not even in another life of the
// same key, and do not follow from each other.
func TestCBCIVs(t *testing.T) {
	seen := map[string]bool{}
	for range 2 {
		p := newPair(t, Config{Suite: suite(t, ESP, "aes-128-cbc", "hmac-sha2-256-128"), Manual: true})
		for range 1000 {
			sealed := p.mustSeal(t, udp4(60))
			seen[string(sealed[28:44])] = true
		}
	}
	if len(seen) != 2000 {
		t.Errorf("%d IVs for 2000 packets", len(seen))
	}
	ones := 0
	for iv := range seen {
		ones += int(iv[15] & 1)
	}
	if ones < 800 || ones > 1200 {
		t.Errorf("%d of 2000 IVs end in a set bit", ones)
	}
}
