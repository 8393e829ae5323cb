package esp

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/ipfw/ipfw/esp/wycheproof"
)

// cipherGroup is what a group of vectors says of all, in bits.
type cipherGroup struct{ KeySize, IVSize, TagSize int }

type cipherVector struct {
	ID                         int `json:"tcId"`
	Result                     string
	Key, IV, AAD, Msg, CT, Tag wycheproof.Bytes
}

// TestWycheproof holds every cipher as esp makes it to Project Wycheproof, valid
// vectors and forged ones. Neither Go 1.26 nor x/crypto does so in its own tests.
func TestWycheproof(t *testing.T) {
	vectors := wycheproof.Fetch(t)
	for _, c := range []struct {
		file, name string // name with the key length to be filled in
		n          int
	}{
		{"aes_gcm", "aes-%d-gcm-16", 190},
		{"chacha20_poly1305", "chacha20-poly1305", 300},
	} {
		wycheproof.Each(t, vectors, c.file, c.n, func(g *cipherGroup, w *cipherVector) bool {
			if g.IVSize != 96 || g.TagSize != 128 {
				return false
			}
			name := c.name
			if c.file == "aes_gcm" {
				name = fmt.Sprintf(c.name, g.KeySize)
			}
			wycheproofAEAD(t, suite(t, ESP, name, ""), w)
			return true
		})
	}
	wycheproof.Each(t, vectors, "aes_gmac", 200, func(g *cipherGroup, w *cipherVector) bool {
		if g.IVSize != 96 || g.TagSize != 128 {
			return false
		}
		s := suite(t, AH, "", fmt.Sprintf("aes-%d-gmac", g.KeySize))
		iv := w.IV
		c := newPair(t, Config{Suite: s, IntegrityKey: NewKey(slices.Concat(w.Key, iv[:4]))}).in.crypt
		x := c.get()
		copy(x.nonce[4:], iv[4:])
		x.buf = append(x.buf[:0], w.Msg...)
		if got := c.sum(x, x.buf, nil, 0); bytes.Equal(got, w.Tag) != (w.Result == "valid") {
			t.Errorf("aes_gmac %d, %s: %x, want %x", w.ID, w.Result, got, w.Tag)
		}
		return true
	})
	for file, name := range map[string]string{"hmac_sha1": "hmac-sha1-96", "hmac_sha256": "hmac-sha2-256-128",
		"hmac_sha384": "hmac-sha2-384-192", "hmac_sha512": "hmac-sha2-512-256"} {
		s := suite(t, AH, "", name)
		wycheproof.Each(t, vectors, file, 75, func(g *cipherGroup, w *cipherVector) bool {
			if g.KeySize != s.Integrity.Key*8 || g.TagSize > s.ICV()*8 {
				return false
			}
			c := newPair(t, Config{Suite: s, IntegrityKey: NewKey(w.Key)}).in.crypt
			if got := c.sum(c.get(), w.Msg, nil, 0); bytes.Equal(got[:g.TagSize/8], w.Tag) != (w.Result == "valid") {
				t.Errorf("%s %d, %s: %x, want %x", file, w.ID, w.Result, got, w.Tag)
			}
			return true
		})
	}
	wycheproof.Each(t, vectors, "aes_cbc_pkcs5", 72, func(g *cipherGroup, w *cipherVector) bool {
		if w.Result != "valid" { // their padding is not that of ESP
			return false
		}
		s := suite(t, ESP, fmt.Sprintf("aes-%d-cbc", g.KeySize), "hmac-sha2-256-128")
		c := newPair(t, Config{Suite: s, EncryptionKey: NewKey(w.Key)}).in.crypt
		x := c.get()
		plain := w.Msg
		pad := 16 - len(plain)%16
		plain = append(plain, bytes.Repeat([]byte{byte(pad)}, pad)...)
		b := bytes.Clone(plain)
		x.enc.SetIV(w.IV)
		if x.enc.CryptBlocks(b, b); !bytes.Equal(b, w.CT) {
			t.Errorf("aes_cbc_pkcs5 %d: sealed to %x, want %x", w.ID, b, w.CT)
		}
		x.dec.SetIV(w.IV)
		if x.dec.CryptBlocks(b, b); !bytes.Equal(b, plain) {
			t.Errorf("aes_cbc_pkcs5 %d: opened to %x, want %x", w.ID, b, plain)
		}
		return true
	})
}

// wycheproofAEAD tries a vector whose nonce is cut into salt and IV. Where its
// additional data are as long as the header of ESP it goes the whole way of a
// packet, else to the cipher alone.
func wycheproofAEAD(t *testing.T, s Suite, w *cipherVector) {
	t.Helper()
	iv, aad, msg := w.IV, w.AAD, w.Msg
	sealed := slices.Concat(w.CT, w.Tag)
	c := newPair(t, Config{Suite: s, EncryptionKey: NewKey(slices.Concat(w.Key, iv[:4]))}).in.crypt
	x := c.get()
	copy(x.nonce[4:], iv[4:])
	valid := w.Result == "valid"
	if valid {
		if got := c.aead.Seal(nil, x.nonce[:], msg, aad); !bytes.Equal(got, sealed) {
			t.Errorf("%s %d: sealed to %x, want %x", s, w.ID, got, sealed)
		}
	}
	got, err := c.aead.Open(nil, x.nonce[:], sealed, aad)
	if (err == nil) != valid || valid && !bytes.Equal(got, msg) {
		t.Errorf("%s %d, %s: %v, opened to %x, want %x", s, w.ID, w.Result, err, got, msg)
	}
	if len(aad) == espHeader {
		p := append(append(bytes.Clone(aad), iv[4:]...), sealed...)
		if c.open(x, p, uint64(be.Uint32(aad[4:]))) != valid || valid && !bytes.Equal(p[16:16+len(msg)], msg) {
			t.Errorf("%s %d, %s: as a packet it opens to %x, want %x", s, w.ID, w.Result, p, msg)
		}
	}
}
