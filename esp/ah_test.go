package esp

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"slices"
	"testing"

	"github.com/ipfw/ipfw/packet"
)

// TestAHTransit changes what routers change, and what they must not: RFC 4302
// section 3.3.3.1 and appendix A.
func TestAHTransit(t *testing.T) {
	options4 := slices.Concat(
		[]byte{148, 4, 0, 0},          // router alert: immutable
		[]byte{1, 7, 11, 4},           // no operation; record route: mutable
		make([]byte, 8),               //   its two slots
		[]byte{130, 4, 0xab, 0xcd, 0}, // security: immutable; end of options
	)
	options6 := []packet.Extension{
		{Header: packet.HopByHop, Data: []byte{0x05, 2, 0, 0, 0x3e, 4, 1, 2, 3, 4, 0x1e, 2, 9, 9}},
		{Header: packet.DestOptions, Data: []byte{0x1e, 2, 1, 2}},
	}
	data := []byte("data that is looked at")
	p4 := build(packet.Spec{Src: v4a, Dst: v4b, Protocol: packet.UDP, IPv4Options: options4, Payload: data, TOS: 0x28})
	p6 := build(packet.Spec{Src: v6a, Dst: v6b, Protocol: packet.UDP, Extensions: options6, Payload: data, TOS: 0x28})
	for _, c := range []struct {
		name string
		pkt  []byte
		flip []int // bytes that change
		want Fault
	}{
		{"nothing", p4, nil, OK},
		{"type of service", p4, []int{1}, OK},
		{"time to live and checksum", p4, []int{8, 10, 11}, OK},
		{"identification", p4, []int{4}, Unauthentic},
		{"source", p4, []int{12}, Unauthentic},
		{"router alert", p4, []int{22}, Unauthentic},
		{"recorded route", p4, []int{27, 28, 29, 30, 31, 32}, OK},
		{"security", p4, []int{38}, Unauthentic},
		{"no operation made something else", p4, []int{24}, Unauthentic},
		{"nothing", p6, nil, OK},
		{"traffic class, flow label, hop limit", p6, []int{1, 2, 3, 7}, OK},
		{"source", p6, []int{9}, Unauthentic},
		{"destination", p6, []int{39}, Unauthentic},
		{"option that says it changes", p6, []int{48, 49, 50, 51}, OK},
		{"its type", p6, []int{46}, Malformed},
		{"option that does not", p6, []int{54}, Unauthentic},
		{"what follows AH", p6, []int{96}, Unauthentic},
	} {
		for _, mac := range []string{"hmac-sha2-256-128", "hmac-sha1-96", "aes-256-gmac"} {
			for _, align := range []bool{false, true} {
				conf := Config{Suite: suite(t, AH, "", mac), AHAlign8: align}
				if c.pkt[0]>>4 == 6 {
					conf.Src, conf.Dst = v6a, v6b
				}
				p := newPair(t, conf)
				sealed := p.mustSeal(t, c.pkt)
				if align && sealed[0]>>4 == 4 && int(sealed[41]+2)*4%8 != 0 {
					t.Errorf("%s: AH of %d words is not aligned to 8 bytes", mac, sealed[41]+2)
				}
				for _, i := range c.flip {
					sealed[i] ^= 0x11
				}
				out, _, f := p.in.Open(sealed, 0)
				if f != c.want && !(c.want == Malformed && f == Unauthentic) {
					t.Errorf("%s %s: %v, want %v", mac, c.name, f, c.want)
				}
				if f == OK && len(c.flip) == 0 && !bytes.Equal(out, c.pkt) {
					t.Errorf("%s %s:\n got %x\nwant %x", mac, c.name, out, c.pkt)
				}
			}
		}
	}
}

// TestAHRouted sends AH over a source route, whose last hop is the receiver:
// the sender must predict what the receiver sees.
func TestAHRouted(t *testing.T) {
	s := suite(t, AH, "", "hmac-sha2-256-128")
	hop, end := v6a.Next().AsSlice(), v6b.Next().AsSlice()
	pkt := build(packet.Spec{Src: v6a, Dst: v6b, Protocol: packet.UDP, Payload: []byte("x"),
		Extensions: []packet.Extension{{Header: packet.Routing, Data: slices.Concat([]byte{0, 2, 0, 0, 0, 0}, hop, end)}}})
	p := newPair(t, Config{Suite: s, Src: v6a, Dst: v6b})
	sealed := p.mustSeal(t, pkt)
	// What two routers do: swap the destination with the next address.
	r := sealed[40:]
	dst := slices.Clone(sealed[24:40])
	copy(sealed[24:40], end)
	copy(r[8:24], dst)
	copy(r[24:40], hop)
	r[3] = 0
	if _, _, f := p.in.Open(bytes.Clone(sealed), 0); f != OK {
		t.Errorf("IPv6 routing header: %v", f)
	}

	// IPv4 loose source route: pointer 4 of 11 bytes, two addresses.
	hop4, end4 := []byte{203, 0, 113, 1}, v4b.AsSlice()
	pkt = build(packet.Spec{Src: v4a, Dst: v4b, Protocol: packet.UDP, Payload: []byte("x"),
		IPv4Options: slices.Concat([]byte{1, 131, 11, 4}, hop4, end4)})
	copy(pkt[16:20], []byte{198, 18, 0, 1}) // the first hop
	p = newPair(t, Config{Suite: s})
	sealed = p.mustSeal(t, pkt)
	copy(sealed[16:20], end4)
	sealed[23] = 12
	copy(sealed[24:], []byte{198, 18, 0, 9, 203, 0, 113, 9}) // as recorded
	if _, _, f := p.in.Open(sealed, 0); f != OK {
		t.Errorf("IPv4 source route: %v", f)
	}

	// A routing header of an unknown type that is not used up cannot be
	// predicted.
	pkt = build(packet.Spec{Src: v6a, Dst: v6b, Protocol: packet.UDP,
		Extensions: []packet.Extension{{Header: packet.Routing, Data: slices.Concat([]byte{4, 1, 0, 0, 0, 0}, hop)}}})
	p = newPair(t, Config{Suite: s, Src: v6a, Dst: v6b})
	if _, _, f := p.out.Seal(nil, pkt, 0); f != Malformed {
		t.Errorf("segment routing header: %v", f)
	}
	// Options that run over their end.
	bad := build(packet.Spec{Src: v4a, Dst: v4b, Protocol: packet.UDP, IPv4Options: []byte{7, 40, 4, 0}})
	p = newPair(t, Config{Suite: s})
	if _, _, f := p.out.Seal(nil, bad, 0); f != Malformed {
		t.Errorf("overlong option: %v", f)
	}
}

// A raw socket gives an identification to an IPv4 packet that has none. AH
// covers the field, so the packet must have one before.
func TestAHIdentifies(t *testing.T) {
	pkt := udp4(80)
	clear(pkt[4:6])
	be.PutUint16(pkt[10:], 0)
	be.PutUint16(pkt[10:], packet.Checksum(pkt[:20], 0))
	for _, mode := range []Mode{Transport, Tunnel} {
		p := newPair(t, Config{Mode: mode, Suite: suite(t, AH, "", "hmac-sha2-256-128")})
		for range 3 {
			sealed, _, _ := p.out.Seal(nil, pkt, 0)
			if be.Uint16(sealed[4:]) == 0 || packet.Checksum(sealed[:20], 0) != 0 {
				t.Errorf("%v: header %x", mode, sealed[:20])
			}
		}
	}
}

// TestAHGMACReadings sends what RFC 4543 section 4 says, that the IV is an input to
// AES-GMAC and stays as it is, and takes also what is computed with the IV set to
// zero, as others do. Neither lets a bit be changed.
func TestAHGMACReadings(t *testing.T) {
	key := bytes.Repeat([]byte{7}, 20)
	for _, v6 := range []bool{false, true} {
		for _, esn := range []bool{false, true} {
			conf := Config{Suite: suite(t, AH, "", "aes-128-gmac"), ESN: esn}
			pkt, ip := build(packet.Spec{Src: v4a, Dst: v4b, Protocol: packet.UDP, Payload: []byte("some data")}), 20
			if v6 {
				conf.Src, conf.Dst = v6a, v6b
				pkt, ip = build(packet.Spec{Src: v6a, Dst: v6b, Protocol: packet.UDP, Payload: []byte("some data")}), 40
			}
			with := func() Config { c := conf; c.IntegrityKey = NewKey(bytes.Clone(key)); return c }
			sealed := newPair(t, with()).mustSeal(t, pkt)
			block, err := aes.NewCipher(key[:16])
			if err != nil {
				t.Fatal(err)
			}
			gcm, err := cipher.NewGCM(block)
			if err != nil {
				t.Fatal(err)
			}
			iv, tag := sealed[ip+12:ip+20], sealed[ip+20:ip+36]
			tagOf := func(zeroIV bool) []byte {
				b := bytes.Clone(sealed)
				clear(b[ip+20 : ip+36])
				if zeroIV {
					clear(b[ip+12 : ip+20])
				}
				if v6 { // traffic class, flow label, hop limit
					b[0], b[1], b[2], b[3], b[7] = 0x60, 0, 0, 0, 0
				} else { // type of service, flags, time to live, checksum
					for _, i := range []int{1, 6, 7, 8, 10, 11} {
						b[i] = 0
					}
				}
				if esn {
					b = append(b, 0, 0, 0, 0) // the high half of the sequence number
				}
				return gcm.Seal(nil, slices.Concat(key[16:], iv), nil, b)
			}
			if !bytes.Equal(tag, tagOf(false)) {
				t.Errorf("v6 %v, esn %v: sent with the tag %x, want %x", v6, esn, tag, tagOf(false))
			}
			other := bytes.Clone(sealed)
			copy(other[ip+20:], tagOf(true))
			for _, b := range [][]byte{sealed, other} {
				for i := range b {
					mutable := i == 1 || i == 6 && !v6 || i == 7 || !v6 && (i == 8 || i == 10 || i == 11) || v6 && (i == 0 || i == 2 || i == 3)
					if mutable {
						continue
					}
					bad := bytes.Clone(b)
					bad[i] ^= 4
					if _, _, f := newPair(t, with()).in.Open(bad, 0); f == OK {
						t.Errorf("v6 %v, esn %v: byte %d changed, and taken", v6, esn, i)
					}
				}
				if out, _, f := newPair(t, with()).in.Open(bytes.Clone(b), 0); f != OK || !bytes.Equal(out, pkt) {
					t.Errorf("v6 %v, esn %v: %v", v6, esn, f)
				}
			}
		}
	}
}
