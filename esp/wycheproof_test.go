package esp

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The vectors of Project Wycheproof come as a Go module of 28 MB, which holds
// no package: it is fetched when this test runs, as Go's own tests fetch
// theirs, and is no dependency of ipfw.
const (
	wycheproofModule = "github.com/C2SP/wycheproof@v0.0.0-20250901140545-b51abcfb8daf"
	wycheproofSum    = "h1:5BKKVVVj676FUWirLcouEEL6GCYR9X0opkMlEUck8FY="
)

// wycheproofDir is where the module's vectors are.
func wycheproofDir(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: Wycheproof's vectors are not fetched")
	}
	cmd := exec.Command("go", "mod", "download", "-json", wycheproofModule)
	cmd.Dir = t.TempDir()
	out, err := cmd.Output()
	var module struct{ Dir, Sum, Error string }
	if jsonErr := json.Unmarshal(out, &module); jsonErr != nil || err != nil || module.Error != "" {
		why := fmt.Sprintf("Wycheproof's vectors cannot be fetched: %v %s", err, module.Error)
		if os.Getenv("CI") != "" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	if module.Sum != wycheproofSum {
		t.Fatalf("%s has sum %s, want %s", wycheproofModule, module.Sum, wycheproofSum)
	}
	return filepath.Join(module.Dir, "testvectors_v1")
}

type wycheproofTest struct {
	ID     int `json:"tcId"`
	Result string
	bits   struct{ key, iv, tag int }
	// In hexadecimal.
	Key, IV, AAD, Msg, CT, Tag string
}

func (w *wycheproofTest) bytes(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// wycheproof runs f for each test of a file, and wants to have run at least n.
func wycheproof(t *testing.T, dir, file string, n int, f func(t *testing.T, w *wycheproofTest) bool) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, file+"_test.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all struct {
		TestGroups []struct {
			KeySize, IVSize, TagSize int
			Tests                    []wycheproofTest
		}
	}
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, g := range all.TestGroups {
		for i := range g.Tests {
			w := &g.Tests[i]
			w.bits.key, w.bits.iv, w.bits.tag = g.KeySize, g.IVSize, g.TagSize
			if f(t, w) {
				ran++
			}
		}
	}
	t.Logf("%s: %d vectors of a form that IPsec has", file, ran)
	if ran < n {
		t.Errorf("%s: only %d vectors were tried", file, ran)
	}
}

// TestWycheproof holds every cipher as esp makes it to Project Wycheproof, valid
// vectors and forged ones. Neither Go 1.26 nor x/crypto does so in its own tests.
func TestWycheproof(t *testing.T) {
	dir := wycheproofDir(t)
	for _, c := range []struct {
		file, name string // name with the key length to be filled in
		n          int
	}{
		{"aes_gcm", "aes-%d-gcm-16", 190},
		{"chacha20_poly1305", "chacha20-poly1305", 300},
	} {
		wycheproof(t, dir, c.file, c.n, func(t *testing.T, w *wycheproofTest) bool {
			if w.bits.iv != 96 || w.bits.tag != 128 {
				return false
			}
			name := c.name
			if c.file == "aes_gcm" {
				name = fmt.Sprintf(c.name, w.bits.key)
			}
			wycheproofAEAD(t, suite(t, ESP, name, ""), w)
			return true
		})
	}
	wycheproof(t, dir, "aes_gmac", 200, func(t *testing.T, w *wycheproofTest) bool {
		if w.bits.iv != 96 || w.bits.tag != 128 {
			return false
		}
		s := suite(t, AH, "", fmt.Sprintf("aes-%d-gmac", w.bits.key))
		iv := w.bytes(t, w.IV)
		c := newPair(t, Config{Suite: s, IntegrityKey: NewKey(append(w.bytes(t, w.Key), iv[:4]...))}).in.crypt
		x := c.get()
		copy(x.nonce[4:], iv[4:])
		x.buf = append(x.buf[:0], w.bytes(t, w.Msg)...)
		if got := c.sum(x, x.buf, nil, 0); bytes.Equal(got, w.bytes(t, w.Tag)) != (w.Result == "valid") {
			t.Errorf("aes_gmac %d, %s: %x, want %s", w.ID, w.Result, got, w.Tag)
		}
		return true
	})
	for file, name := range map[string]string{"hmac_sha1": "hmac-sha1-96", "hmac_sha256": "hmac-sha2-256-128",
		"hmac_sha384": "hmac-sha2-384-192", "hmac_sha512": "hmac-sha2-512-256"} {
		s := suite(t, AH, "", name)
		wycheproof(t, dir, file, 75, func(t *testing.T, w *wycheproofTest) bool {
			if w.bits.key != s.Integrity.Key*8 || w.bits.tag > s.ICV()*8 {
				return false
			}
			c := newPair(t, Config{Suite: s, IntegrityKey: NewKey(w.bytes(t, w.Key))}).in.crypt
			if got := c.sum(c.get(), w.bytes(t, w.Msg), nil, 0); bytes.Equal(got[:w.bits.tag/8], w.bytes(t, w.Tag)) != (w.Result == "valid") {
				t.Errorf("%s %d, %s: %x, want %s", file, w.ID, w.Result, got, w.Tag)
			}
			return true
		})
	}
	wycheproof(t, dir, "aes_cbc_pkcs5", 72, func(t *testing.T, w *wycheproofTest) bool {
		if w.Result != "valid" { // their padding is not that of ESP
			return false
		}
		s := suite(t, ESP, fmt.Sprintf("aes-%d-cbc", w.bits.key), "hmac-sha2-256-128")
		c := newPair(t, Config{Suite: s, EncryptionKey: NewKey(w.bytes(t, w.Key))}).in.crypt
		x := c.get()
		plain := w.bytes(t, w.Msg)
		pad := 16 - len(plain)%16
		plain = append(plain, bytes.Repeat([]byte{byte(pad)}, pad)...)
		b := bytes.Clone(plain)
		x.enc.SetIV(w.bytes(t, w.IV))
		if x.enc.CryptBlocks(b, b); !bytes.Equal(b, w.bytes(t, w.CT)) {
			t.Errorf("aes_cbc_pkcs5 %d: sealed to %x, want %s", w.ID, b, w.CT)
		}
		x.dec.SetIV(w.bytes(t, w.IV))
		if x.dec.CryptBlocks(b, b); !bytes.Equal(b, plain) {
			t.Errorf("aes_cbc_pkcs5 %d: opened to %x, want %x", w.ID, b, plain)
		}
		return true
	})
}

// wycheproofAEAD tries a vector whose nonce is cut into salt and IV. Where its
// additional data are as long as the header of ESP it goes the whole way of a
// packet, else to the cipher alone.
func wycheproofAEAD(t *testing.T, s Suite, w *wycheproofTest) {
	t.Helper()
	iv, aad, msg := w.bytes(t, w.IV), w.bytes(t, w.AAD), w.bytes(t, w.Msg)
	sealed := append(w.bytes(t, w.CT), w.bytes(t, w.Tag)...)
	c := newPair(t, Config{Suite: s, EncryptionKey: NewKey(append(w.bytes(t, w.Key), iv[:4]...))}).in.crypt
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
