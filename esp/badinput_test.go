package esp

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/ipfw/ipfw/packet"
)

// badInput is one packet that must not come out of an SA.
type badInput struct {
	name string
	pkt  []byte
	want Fault
	// authentic says that the far end itself made it: then it counts as a
	// packet of the SA, and as a fault.
	authentic bool
}

// badInputs gives what can be wrong with a packet for p.in, which has received
// numbers up to 300 by a window of 64; all but the last two kinds whoever is on
// the way can make.
func badInputs(t testing.TB, p *pair) (list []badInput) {
	c := p.in.Config()
	v6 := c.Dst.Is6()
	front := ipv4Header
	if v6 {
		front = ipv6Header
	}
	clear := badClear(&c)
	seal := func(seq uint64) []byte {
		p.out.seq.Store(seq - 1)
		return p.mustSeal(t, clear)
	}
	add := func(name string, want Fault, pkt []byte) { list = append(list, badInput{name, pkt, want, false}) }
	flip := func(at int) []byte {
		b := seal(301)
		if at < 0 {
			at += len(b)
		}
		b[at] ^= 0x04
		return b
	}
	spi := front
	if p.in.Protocol() == AH {
		spi += 4
	}
	add("wrong SPI", UnknownSPI, flip(spi+3))
	add("reserved SPI", UnknownSPI, append(append(seal(301)[:spi:spi], 0, 0, 0, 1), seal(301)[spi+4:]...))
	other := Config{SPI: c.SPI, Mode: c.Mode, Suite: c.Suite, Src: c.Src, Dst: c.Dst, ESN: c.ESN}
	if n := c.Suite.Encryption.KeyMaterial(); n > 0 {
		other.EncryptionKey = NewKey(pattern(n, 0x12))
	}
	if n := c.Suite.Integrity.KeyMaterial(); n > 0 {
		other.IntegrityKey = NewKey(pattern(n, 0x78))
	}
	q := newPair(t, other)
	q.out.seq.Store(300)
	add("wrong key", Unauthentic, q.mustSeal(t, clear))
	add("flipped bit in the sequence number", Unauthentic, flip(spi+4+2))
	add("flipped bit in the IV or ICV", Unauthentic, flip(spi+8))
	add("flipped bit in the middle", Unauthentic, flip((front+len(clear))/2+20))
	add("flipped bit at the end", Unauthentic, flip(-1))
	add("replayed", Replay, seal(300))
	add("replayed, from the end of the window", Replay, seal(300-63))
	if !c.ESN { // with it, an old number is a new one of the next round
		add("old", TooOld, seal(300-64))
		add("very old", TooOld, seal(1))
		zero := seal(301)
		be.PutUint32(zero[spi+4:], 0)
		add("number 0", TooOld, zero)
	}
	add("cut, and the IP header does not know", Short, seal(301)[:60])
	add("nothing but the IP header", Short, cutTo(seal(301), front))
	add("three bytes of it", Short, cutTo(seal(301), front+3))
	add("as long as its headers", Short, cutTo(seal(301), front+12))
	cut := Unauthentic
	if p.in.Protocol() == ESP { // not a multiple of 4
		cut = Malformed
	}
	add("one byte short", cut, cutTo(seal(301), len(seal(301))-1))
	if c.Suite.Encryption.Block <= 4 {
		cut = Unauthentic
	}
	add("four bytes short", cut, cutTo(seal(301), len(seal(301))-4))
	add("16 bytes short", Unauthentic, cutTo(seal(301), len(seal(301))-16))
	if !v6 {
		fragment := seal(301)
		fragment[6] |= 0x20
		add("first fragment", Fragment, fragment)
		options := seal(301)
		options[0]++
		add("options that are not there", UnknownSPI, options) // another word is the SPI now
	}
	return append(list, badContents(p, clear, front)...)
}

// badContents are the packets that only who has the keys can make.
func badContents(p *pair, clear []byte, front int) (list []badInput) {
	add := func(name string, want Fault, body []byte, next uint8) {
		b := bytes.Clone(clear[:front])
		if b[0]>>4 == 4 {
			b = b[:ipv4Header]
		}
		if p.in.Protocol() == AH {
			n := p.out.cfg.ahLen(b[0]>>4 == 6)
			b = append(append(b, make([]byte, n)...), body...)
			resize(b, placeOf(b), packet.AH)
			s := p.out.crypt.get()
			p.out.sealAH(s, b, front, n, next, 301)
			p.out.crypt.put(s)
		} else {
			b = append(b, sealRaw(p.out, 301, body)...)
			resize(b, placeOf(b), packet.ESP)
		}
		list = append(list, badInput{name, b, want, true})
	}
	garbage := pattern(94, 0xa7)
	if p.in.Protocol() == ESP {
		add("padding that does not count", BadPadding, append(bytes.Clone(garbage[:92]), 1, 1, 2, 4), 0)
		add("padding longer than the packet", BadPadding, append(bytes.Clone(garbage), 200, 4), 0)
		add("dummy", Dummy, append(bytes.Clone(garbage), 0, packet.NoNext), 0)
	} else {
		add("nothing follows", Dummy, garbage, packet.NoNext)
	}
	if p.in.Mode() != Tunnel {
		return list
	}
	for _, next := range []uint8{packet.IPv4, packet.IPv6, packet.TCP, packet.ESP} {
		for _, first := range []byte{0x00, 0x45, 0x4f, 0x60, 0xff} {
			body := bytes.Clone(garbage)
			body[0] = first
			if p.in.Protocol() == ESP {
				body = append(body, 0, next)
			}
			add(fmt.Sprintf("nested garbage, protocol %d, first byte %#x", next, first), BadPayload, body, next)
		}
	}
	return list
}

// badClear is what a pair of the configuration protects.
func badClear(c *Config) []byte {
	return build(packet.Spec{Src: c.Src, Dst: c.Dst, Protocol: packet.UDP, SrcPort: 1, DstPort: 2, Payload: pattern(80, 3)})
}

func cutTo(b []byte, n int) []byte {
	b = b[:n]
	p := placeOf(b)
	resize(b, p, b[p.field])
	return b
}

func placeOf(b []byte) place {
	if b[0]>>4 == 6 {
		return place{v6: true, field: 6}
	}
	return place{field: 9}
}

// eachBadPair runs f for ESP and AH, both modes, both families, with and
// without ESN.
func eachBadPair(t *testing.T, f func(t *testing.T, p *pair, d *SAD)) {
	for _, s := range []Suite{suite(t, ESP, "aes-128-gcm-16", ""), suite(t, ESP, "chacha20-poly1305", ""), suite(t, ESP, "aes-128-gmac", ""),
		suite(t, ESP, "aes-256-cbc", "hmac-sha2-256-128"), suite(t, ESP, "insecure-null", "hmac-sha1-96"),
		suite(t, AH, "", "hmac-sha2-512-256"), suite(t, AH, "", "aes-256-gmac")} {
		for i := range 8 {
			c := Config{Suite: s, Mode: Transport + Mode(i&1), Src: v4a, Dst: v4b, ESN: i&2 != 0, ReplayWindow: 64}
			if i&4 != 0 {
				c.Src, c.Dst = v6a, v6b
			}
			t.Run(fmt.Sprintf("%s/%s/%s/esn=%t/%s", s.Protocol, s, c.Mode, c.ESN, c.Dst), func(t *testing.T) {
				p := newPair(t, c)
				for seq := uint64(300 - 63); seq <= 300; seq++ {
					p.in.win.Mark(seq)
				}
				d := NewSAD()
				if err := d.Insert(p.in); err != nil {
					t.Fatal(err)
				}
				f(t, p, d)
			})
		}
	}
}

// TestBadInput: each thing that can be wrong is one fault of the right name,
// counted once. What nobody vouches for changes nothing else in the SA, and the
// next good packet comes through.
func TestBadInput(t *testing.T) {
	eachBadPair(t, func(t *testing.T, p *pair, d *SAD) {
		c := p.in.Config()
		for _, bad := range badInputs(t, p) {
			before, counters := faultsOf(d, p.in), p.in.Counters()
			ring := append([]uint64(nil), p.in.win.ring...)
			out, _, rekey, f := d.Open(bytes.Clone(bad.pkt), 1e12)
			if f != bad.want || out != nil || rekey {
				t.Errorf("%s: %v, %d bytes, rekey %t; want %v", bad.name, f, len(out), rekey, bad.want)
				continue
			}
			before[f]++
			if after := faultsOf(d, p.in); after != before {
				t.Errorf("%s: counted %v, want %v", bad.name, after, before)
			}
			now := p.in.Counters()
			if bad.authentic {
				if now.Packets != counters.Packets+1 || now.Seq != 301 {
					t.Errorf("%s: not counted as a packet: %+v", bad.name, now)
				}
				p.in.win.init(64, c.ESN, false, 0) // back to where it was
				p.in.win.top = 300
				copy(p.in.win.ring, ring)
				continue
			}
			if now.Faults = counters.Faults; now != counters {
				t.Errorf("%s: %+v became %+v", bad.name, counters, now)
			}
			if fmt.Sprint(ring) != fmt.Sprint(p.in.win.ring) {
				t.Errorf("%s: the replay window has changed", bad.name)
			}
		}
		p.out.seq.Store(300)
		clear := badClear(&c)
		if out, _, _, f := d.Open(p.mustSeal(t, clear), 0); f != OK || !bytes.Equal(out, clear) {
			t.Errorf("the next good packet: %v", f)
		}
	})
}

// TestNotItsProtocol: an SA of one protocol is given the payload of the other.
func TestNotItsProtocol(t *testing.T) {
	ah := newPair(t, Config{Suite: suite(t, AH, "", "hmac-sha2-256-128")})
	if _, _, _, f := ah.in.OpenPayload(make([]byte, 100), 0); f != UnknownSPI {
		t.Errorf("ESP for an SA of AH: %v", f)
	}
	e := newPair(t, Config{Suite: suite(t, ESP, "aes-128-gcm-16", "")})
	if _, _, f := e.in.Open(ah.mustSeal(t, badClear(&ah.in.cfg)), 0); f != Malformed {
		t.Errorf("AH for an SA of ESP: %v", f)
	}
}
