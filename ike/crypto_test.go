package ike

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hkdf"
	"encoding/hex"
	"fmt"
	"math/big"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// prf+ with HMAC is HKDF-Expand (RFC 5869 section 2.3): the standard
// library's is the slow twin.
func TestPRFPlusIsHKDFExpand(t *testing.T) {
	for _, id := range []uint16{PRFSHA1, PRFSHA256, PRFSHA384, PRFSHA512} {
		h, _ := hashOf(id)
		for _, n := range []int{1, 19, 20, 32, 33, 64, 200, 500} {
			key, seed := []byte("0123456789abcdef0123456789abcdef"), []byte("nonces and SPIs")
			want, err := hkdf.Expand(h, key, string(seed), n)
			if err != nil {
				t.Fatal(err)
			}
			if got := prfPlus(id, key, seed, n); !bytes.Equal(got, want) {
				t.Errorf("prf %d, %d bytes: %x, want %x", id, n, got, want)
			}
		}
	}
}

// RFC 4231 section 4.3 (test case 2).
func TestPRFVectors(t *testing.T) {
	for id, want := range map[uint16]string{
		PRFSHA256: "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
		PRFSHA384: "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
		PRFSHA512: "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
	} {
		if got := prf(id, []byte("Jefe"), []byte("what do ya want "), []byte("for nothing?")); hex.EncodeToString(got) != want {
			t.Errorf("prf %d: %x", id, got)
		}
	}
}

// The primes have a closed form, RFC 3526: 2^n - 2^(n-64) - 1 +
// 2^64 * ([2^(n-130) pi] + k), which this test computes.
func TestMODPPrimes(t *testing.T) {
	for id, want := range map[uint16]struct {
		bits uint
		k    int64
	}{KEMODP2048: {2048, 124476}, KEMODP3072: {3072, 1690314}, KEMODP4096: {4096, 240904}} {
		one := big.NewInt(1)
		p := new(big.Int).Lsh(one, want.bits)
		p.Sub(p, new(big.Int).Lsh(one, want.bits-64))
		p.Sub(p, one)
		x := piTimesPowerOf2(want.bits - 130)
		x.Add(x, big.NewInt(want.k))
		p.Add(p, x.Lsh(x, 64))
		if p.Cmp(modpGroups[id]) != 0 {
			t.Errorf("group %d is not the prime of RFC 3526", id)
		}
	}
}

// piTimesPowerOf2 is floor(pi * 2^bits) by Machin's formula.
func piTimesPowerOf2(bits uint) *big.Int {
	const guard = 64
	arctan := func(inv int64) *big.Int {
		term := new(big.Int).Lsh(big.NewInt(1), bits+guard)
		term.Div(term, big.NewInt(inv))
		sum, sq := new(big.Int).Set(term), big.NewInt(inv*inv)
		for n, sign := int64(3), int64(-1); term.Sign() != 0; n, sign = n+2, -sign {
			term.Div(term, sq)
			sum.Add(sum, new(big.Int).Mul(new(big.Int).Div(term, big.NewInt(n)), big.NewInt(sign)))
		}
		return sum
	}
	pi := new(big.Int).Mul(arctan(5), big.NewInt(4))
	pi.Sub(pi, arctan(239)).Mul(pi, big.NewInt(4))
	return pi.Rsh(pi, guard)
}

// RFC 5903 section 8.1: the shared secret is x alone, points travel as x | y.
func TestECPVector(t *testing.T) {
	i, err := ecdh.P256().NewPrivateKey(unhex(t, "C88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433"))
	if err != nil {
		t.Fatal(err)
	}
	d := dh{KEP256, i}
	if got, want := d.public(), unhex(t, "DAD0B65394221CF9B051E1FECA5787D098DFE637FC90B9EF945D0C3772581180"+
		"5271A0461CDB8252D61F1C456FA3E59AB1F45B33ACCF5F58389E0577B8990BB3"); !bytes.Equal(got, want) {
		t.Errorf("public %x", got)
	}
	shared, err := d.shared(unhex(t, "D12DFB5289C8D4F81208B70270398C342296970A0BCCB74C736FC7554494BF63"+
		"56FBF3CA366CC23E8157854C13C58D6AAC23F046ADA30F8353E74F33039872AB"))
	if err != nil || hex.EncodeToString(shared) != "d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de" {
		t.Errorf("shared %x, %v", shared, err)
	}
}

func TestKeyExchanges(t *testing.T) {
	k := kexSource{rand: testRand(3)}
	for _, m := range []uint16{KEX25519, KEP256, KEP384, KEP521, KEMODP2048, KEMODP3072, KEMODP4096, KEMLKEM768} {
		i, err := k.start(m)
		if err != nil {
			t.Fatal(err)
		}
		public, want, err := k.respond(m, i.public())
		if err != nil {
			t.Fatalf("%d: %v", m, err)
		}
		got, err := i.shared(public)
		if err != nil || !bytes.Equal(got, want) || len(got) < 32 {
			t.Errorf("%d: %x and %x, %v", m, got, want, err)
		}
		for _, bad := range [][]byte{nil, {1}, public[1:], append([]byte{0}, public...), make([]byte, len(public))} {
			if m == KEMLKEM768 && len(bad) == len(public) {
				continue // implicit rejection, FIPS 203 section 6.3
			}
			if _, err := i.shared(bad); err == nil {
				t.Errorf("%d: took a bad public value of %d bytes", m, len(bad))
			}
		}
	}
	if _, err := k.start(99); err == nil {
		t.Error("started an unknown method")
	}
	if _, _, err := k.respond(KEMLKEM768, bytes.Repeat([]byte{0xff}, 1184)); err == nil {
		t.Error("took an encapsulation key out of range")
	}
}

func TestMODPRange(t *testing.T) {
	k := kexSource{rand: testRand(4)}
	i, _ := k.start(KEMODP2048)
	p := modpGroups[KEMODP2048]
	for name, y := range map[string]*big.Int{"0": new(big.Int), "1": big.NewInt(1),
		"p-1": new(big.Int).Sub(p, big.NewInt(1)), "p": p} {
		if _, err := i.shared(y.FillBytes(make([]byte, 256))); err == nil {
			t.Errorf("took the public value %s", name)
		}
	}
}

func TestSealOpen(t *testing.T) {
	for _, s := range []suite{
		{encr: EncrAESGCM16, encrBits: 128}, {encr: EncrAESGCM16, encrBits: 256}, {encr: EncrChaCha20},
		{encr: EncrAESCBC, encrBits: 128, integ: IntegSHA256}, {encr: EncrAESCBC, encrBits: 256, integ: IntegSHA512},
		{encr: EncrAESCBC, encrBits: 256, integ: IntegSHA384}, {encr: EncrAESCBC, encrBits: 192, integ: IntegSHA1},
	} {
		e, a := bytes.Repeat([]byte{7}, s.encrKeyLen()), bytes.Repeat([]byte{9}, s.integKeyLen())
		x, err := newSealer(&s, bytes.Clone(e), bytes.Clone(a), testRand(1))
		y, err2 := newSealer(&s, e, a, testRand(2))
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		for _, n := range []int{0, 1, 15, 16, 17, 100, 1500, 5000} {
			list := []payload{{kind: plNonce, body: bytes.Repeat([]byte{1}, n)}, note(nCookie, 1, 2, 3)}
			for _, limit := range []int{0, 200, 576, 1280} {
				name := fmt.Sprintf("%s, %d bytes, limit %d", &s, n, limit)
				msgs, err := sealMessage(header{spiI: 1, spiR: 2, exchange: exInformational, id: 5}, list, x, limit)
				if err != nil {
					t.Fatal(name, err)
				}
				var r reassembly
				for i := len(msgs) - 1; i >= 0; i-- { // in the worst order
					m := msgs[i]
					if limit > 0 && len(m) > limit {
						t.Errorf("%s: datagram of %d bytes", name, len(m))
					}
					h, err := parseHeader(m)
					if err != nil {
						t.Fatal(name, err)
					}
					for _, at := range []int{0, headerLen, len(m) / 2, len(m) - 1} {
						bad := bytes.Clone(m)
						bad[at] ^= 0x40
						if o, err := openMessage(h, bad, y, &reassembly{}); err == nil || err == errIncomplete {
							t.Errorf("%s: opened with byte %d changed: %v", name, at, o)
						}
					}
					o, err := openMessage(h, m, y, &r)
					if i > 0 {
						if err != errIncomplete {
							t.Fatal(name, err)
						}
						continue
					}
					if err != nil || len(o.payloads) != 2 || !bytes.Equal(o.payloads[0].body, list[0].body) || o.payloads[1].kind != plNotify {
						t.Fatalf("%s: %v %v", name, o, err)
					}
				}
			}
		}
	}
}
