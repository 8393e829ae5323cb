package esp

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/ipfw/ipfw/packet"
)

// fuzzESP is how many of fuzzPairs are of ESP; they come first.
const fuzzESP = 7 * 4

// fuzzPairs is how many pairs the fuzz tests choose from: ESP and AH, both
// modes, both families, ciphers of every shape.
const fuzzPairs = fuzzESP + 2*4

// fuzzPair makes one of them.
func fuzzPair(t testing.TB, which uint8) *pair {
	i := int(which) % fuzzPairs
	s := [...]struct {
		p        Protocol
		enc, mac string
	}{
		{ESP, "aes-128-gcm-16", ""}, {ESP, "chacha20-poly1305", ""}, {ESP, "aes-256-gmac", ""},
		{ESP, "aes-128-cbc", "hmac-sha1-96"}, {ESP, "aes-128-ctr", "hmac-sha1-96"}, {ESP, "aes-256-cbc", "hmac-sha2-512-256"},
		{ESP, "insecure-null", "hmac-sha2-256-128"}, {AH, "", "hmac-sha2-256-128"}, {AH, "", "aes-128-gmac"},
	}[i/4]
	c := Config{Suite: suite(t, s.p, s.enc, s.mac), Mode: Transport + Mode(i&1)}
	if i&2 != 0 {
		c.Src, c.Dst = v6a, v6b
	} else {
		c.ESN = c.Mode == Tunnel
	}
	return newPair(t, c)
}

// FuzzOpen gives Open any bytes. Whatever they are, the outcome is one counted
// fault, and what is no packet of the pair's changes nothing.
func FuzzOpen(f *testing.F) {
	for i := range uint8(fuzzPairs) {
		p := fuzzPair(f, i)
		pkt := udp4(80)
		if p.out.outer.Load().v6 {
			pkt = udp6(80)
		}
		f.Add(i, p.mustSeal(f, pkt))
	}
	f.Add(uint8(0), []byte{0x60, 0, 0, 0, 0, 8, 43, 0})
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		p := fuzzPair(t, which)
		d := NewSAD()
		p.in.Move(p.in.cfg.Src, netip.Addr{}, Encap{})
		if err := d.Insert(p.in); err != nil {
			t.Fatal(err)
		}
		before := faultsOf(d, p.in)
		out, _, _, fault := d.Open(bytes.Clone(b), 0)
		before[fault]++
		before[OK] = 0
		if after := faultsOf(d, p.in); before != after {
			t.Fatalf("%v: counted %v", fault, after)
		}
		c := p.in.Counters()
		switch fault {
		case OK, Dummy, BadPadding, BadPayload, BadECN:
			if c.Packets != 1 {
				t.Fatalf("%v: %+v", fault, c)
			}
		default:
			if out != nil || c.Packets != 0 || c.Bytes != 0 || c.Seq != 0 {
				t.Fatalf("%v: %+v", fault, c)
			}
		}
	})
}

// FuzzContent gives the far side of authentication any bytes: what a peer that
// has the key may send.
func FuzzContent(f *testing.F) {
	f.Add(uint8(0), []byte{1, 2, 2, 17})
	f.Add(uint8(1), append(udp4(62), 0, 4))
	f.Add(uint8(3), append(udp6(60), 1, 2, 2, 41))
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		p := fuzzPair(t, which%fuzzESP)
		if len(body) < 2 || len(body)%max(4, p.out.Suite().Encryption.Block) != 0 {
			return
		}
		b := sealRaw(p.out, 1, body)
		payload, next, _, fault := p.in.OpenPayload(b, 0)
		if fault != OK && fault != BadPadding && fault != Dummy {
			t.Fatal(fault)
		}
		if fault == OK && p.in.Mode() == Tunnel {
			inner, fault := p.in.Inner(payload, next, 3)
			if fault == OK {
				var q packet.Packet
				packet.Parse(&q, inner, len(inner))
			}
		}
		if c := p.in.Counters(); c.Packets != 1 || c.Seq != 1 {
			t.Fatalf("%+v", c)
		}
	})
}

// FuzzSeal gives Seal any bytes: what it seals, Open gives back.
func FuzzSeal(f *testing.F) {
	for i := range uint8(fuzzPairs) {
		f.Add(i, udp4(80))
		f.Add(i, udp6(80))
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		p := fuzzPair(t, which)
		sealed, _, fault := p.out.Seal(nil, b, 0)
		if fault != OK {
			return
		}
		if n := p.out.SealedLenOf(b); n != len(sealed) {
			t.Fatalf("%d bytes, SealedLenOf says %d", len(sealed), n)
		}
		out, _, fault := p.in.Open(bytes.Clone(sealed), 0)
		if fault != OK {
			// The one thing that Seal lets through and Open does not: a
			// packet that says that nothing follows, as dummies do.
			q, _ := find(b, true)
			if fault == Dummy && q.next == packet.NoNext {
				return
			}
			t.Fatalf("sealed, and then %v\n%x", fault, sealed)
		}
		if p.out.Mode() == Transport && b[0]>>4 == 4 {
			// The header checksum is made anew, and AH gives an identification
			// to a packet that has none.
			b = bytes.Clone(b)
			copy(b[10:12], out[10:12])
			if p.out.Protocol() == AH && b[4]|b[5] == 0 {
				copy(b[4:6], out[4:6])
			}
		}
		if !bytes.Equal(out, b) {
			t.Fatalf("\n got %x\nwant %x", out, b)
		}
	})
}
